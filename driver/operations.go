package tega

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"tega.internal/tega/internal/wire"
)

// Op is one operation of a transaction: made by [Put], [PutEphemeral], [Delete], [Get] or
// [GetRegex].
type Op struct {
	operation
	err error
}

// operation is one as the server reads it.
type operation struct {
	Ope       string          `json:"ope"`
	Path      string          `json:"path"`
	Instance  json.RawMessage `json:"instance,omitempty"`
	Version   *int64          `json:"version,omitempty"`
	Ephemeral bool            `json:"ephemeral,omitempty"`
	Internal  bool            `json:"internal,omitempty"`
	RegexFlag bool            `json:"regex_flag,omitempty"`

	Consistent bool `json:"consistent,omitempty"`
}

// Option is a condition of a change, or what a read is to give.
type Option func(*Op)

// IfVersion refuses a change, as a collision, unless the node has this version. Of a transaction
// all is refused then.
func IfVersion(version int64) Option { return func(op *Op) { op.Version = &version } }

// IfAbsent refuses a put, as a collision, where there is a node already.
func IfAbsent() Option { return IfVersion(-1) }

// AtVersion reads an old version of the root; a negative one counts back from the newest.
func AtVersion(version int64) Option { return IfVersion(version) }

// Internal reads with the attributes of every node: _version, _ephemeral and so on.
func Internal() Option { return func(op *Op) { op.Internal = true } }

// Consistent reads what the leader of the root has now, rather than what has come to the server
// that is asked. Where the leader is away, that is refused with leader_away. It is not for
// transactions that change something.
func Consistent() Option { return func(op *Op) { op.Consistent = true } }

// Path is the dotted path of some keys, with quotes where a key needs them: Path("r", "10.0.0.0/8")
// is r."10.0.0.0/8".
func Path(keys ...string) string { return wire.Path(keys).String() }

// Put replaces what stands at a dotted path with a value, which is written as encoding/json does.
func Put(path string, value any, options ...Option) Op {
	instance, err := encode(value)
	return made(Op{operation{Ope: "PUT", Path: path, Instance: instance}, err}, options)
}

// PutEphemeral is [Put] of what goes when the session of this client ends.
func PutEphemeral(path string, value any, options ...Option) Op {
	op := Put(path, value, options...)
	op.Ephemeral = true
	return op
}

// Delete removes what stands at a dotted path, and every parent that it leaves empty.
func Delete(path string, options ...Option) Op {
	return made(Op{operation: operation{Ope: "DELETE", Path: path}}, options)
}

// Get reads what stands at a dotted path before the transaction that it is in.
func Get(path string, options ...Option) Op {
	return made(Op{operation: operation{Ope: "GET", Path: path}}, options)
}

// GetRegex reads all that a pattern matches: one regular expression (RE2) a level, split at \.,
// each matched from the start of the key.
func GetRegex(pattern string, options ...Option) Op {
	return made(Op{operation: operation{Ope: "GET", Path: pattern, RegexFlag: true}}, options)
}

func made(op Op, options []Option) Op {
	for _, option := range options {
		option(&op)
	}
	if op.err == nil && !op.RegexFlag {
		_, err := wire.ParsePath(op.Path)
		op.err = malformed(err)
	}
	return op
}

// newID is a new random UUID.
func newID() string {
	high, low := rand.Uint64(), rand.Uint64()
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x",
		high>>32, high>>16&0xffff, high&0xfff|0x4000, low>>48&0x3fff|0x8000, low&(1<<48-1))
}
