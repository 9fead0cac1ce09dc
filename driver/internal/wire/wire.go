// Package wire is tega's WebSocket protocol without any I/O: messages, and what may come when.
//
// doc/message-format.md has the grammar, doc/message-sequence.md the order of messages. The bytes
// and meanings of tests/vectors are run against this package by its tests.
package wire

import "fmt"

// The codes of what is wrong with a message.
const (
	Malformed     = "malformed"      // the message is known, and something is wrong with it
	NotUnderstood = "not_understood" // it is no message, or may not come now or from that end
)

// Error says what is wrong with a message, a path or a JSON document.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Message }

func malformed(format string, args ...any) error {
	return &Error{Malformed, fmt.Sprintf(format, args...)}
}

func notUnderstood(format string, args ...any) error {
	return &Error{NotUnderstood, fmt.Sprintf(format, args...)}
}

// shown is a text that a message may show: not all of a long one.
func shown(text string) string {
	if len(text) > 120 {
		text = text[:120] + "..."
	}
	return fmt.Sprintf("%q", text)
}
