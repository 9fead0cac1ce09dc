// The name is no host's: .internal is set aside for private use, so nobody else can publish a
// module under it. README.md says how a program takes it from a clone.
module tega.internal/tega

go 1.22

require github.com/gorilla/websocket v1.5.3
