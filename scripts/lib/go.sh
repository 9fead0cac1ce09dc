# Sourced by scripts/test: tests the Go driver, or says why not.

# One release, so that a clone is checked alike everywhere.
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

test_go() {
    if ! command -v go >/dev/null; then
        echo "the Go driver is not tested: Go is not installed (sudo scripts/setup-system)" >&2
        return
    fi
    if [ "$(printf '%s\n' go1.22 "$(go env GOVERSION)" | sort -V | head -n 1)" != go1.22 ]; then
        echo "the Go driver is not tested: $(go env GOVERSION) is too old for it" >&2
        return
    fi
    local race=(-race) unformatted
    if [ "$(go env CGO_ENABLED)" != 1 ] || ! command -v "$(go env CC)" >/dev/null; then
        echo "the Go driver is tested without -race: that takes cgo and gcc" >&2
        race=()
    fi
    (
        cd "$root/driver"
        unformatted=$(gofmt -l .)
        if [ -n "$unformatted" ]; then
            echo "not as gofmt writes it: $unformatted" >&2
            exit 1
        fi
        if ! git ls-files -z '*.go' | xargs -0 awk '{ gsub(/\t/, "    ") }
            length > 100 { print FILENAME ":" FNR ": more than 100 columns"; long = 1 }
            END { exit long }'; then
            exit 1
        fi
        go mod verify
        go vet ./...
        go run "$staticcheck" ./...
        go test "${race[@]}" ./...
    )
}
