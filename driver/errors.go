package tega

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tega.internal/tega/internal/wire"
)

// Error is a refusal: of the server, or of the driver, which then says what the server would.
//
// errors.Is(err, ErrNotFound) holds for its own code, and for those that are special cases of it,
// such as no_such_version.
type Error struct {
	// Code is the refusal for programs, such as "collision".
	Code string
	// Status is the HTTP status that goes with it, such as 409; 0 where there is none.
	Status int
	// Message says what was wrong and what to do.
	Message string
	// Path is the path that it is about, if it is about one.
	Path string
	// TxID is the id of the transaction that it is about. Where the outcome is unknown,
	// [Client.TxWithID] with this id finds out.
	TxID string
	// Details has what else the server told, such as "expected" and "found" of a collision.
	Details map[string]json.RawMessage

	cause error
}

func (e *Error) Error() string {
	if e.Code == "" {
		return "tega: " + e.Message
	}
	return "tega: " + e.Code + ": " + e.Message
}

// Is says whether this is the refusal target, or a special case of it.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	if !ok {
		return false
	}
	for code := e.Code; code != ""; code = codes[code].parent {
		if code == other.Code {
			return true
		}
	}
	return false
}

// Unwrap is what it came of, such as the end of a context.
func (e *Error) Unwrap() error { return e.cause }

// ErrClientClosed is what everything gets once a client is closed.
var ErrClientClosed = errors.New("tega: the client is closed")

// The refusals, for errors.Is.
var (
	ErrMalformed        = sentinel("malformed")          // what cannot be read: a path, a value
	ErrNotUnderstood    = sentinel("not_understood")     // a case of it: what the protocol has not
	ErrUnauthorized     = sentinel("unauthorized")       // who asks is not known, and has to be
	ErrForbidden        = sentinel("forbidden")          // who asks may not do that
	ErrMethodNotAllowed = sentinel("method_not_allowed") // not by this HTTP method
	ErrInternal         = sentinel("internal")           // a bug of the server

	// There is no such thing. All are cases of the first.
	ErrNotFound          = sentinel("not_found")
	ErrNoSuchVersion     = sentinel("no_such_version")
	ErrNoSuchTransaction = sentinel("no_such_transaction")
	ErrNoSuchFunction    = sentinel("no_such_function")
	ErrNoSuchCommand     = sentinel("no_such_command")
	ErrNoPeer            = sentinel("no_peer") // no server to synchronise with

	// It is well formed, but cannot be as things stand. All are cases of the first.
	ErrRefused           = sentinel("refused")
	ErrCollision         = sentinel("collision")          // the node has not the expected version
	ErrLeafInTheWay      = sentinel("leaf_in_the_way")    // where a container is needed
	ErrEphemeralConflict = sentinel("ephemeral_conflict") // an ephemeral node is in the way
	ErrNoSession         = sentinel("no_session")         // ephemeral nodes need a live one
	ErrLedElsewhere      = sentinel("led_elsewhere")      // other servers lead the roots
	ErrDiverged          = sentinel("diverged")           // a leader's changes do not follow

	// It is more than the server takes.
	ErrTooLarge   = sentinel("too_large")
	ErrURLTooLong = sentinel("url_too_long")
	ErrOverLimit  = sentinel("over_limit") // too many, or too often

	// A call of a function has no result.
	ErrCallFailed  = sentinel("call_failed")  // it has returned an error
	ErrOwnerGone   = sentinel("owner_gone")   // a case of it: its owner is not connected
	ErrCallTimeout = sentinel("call_timeout") // it took too long

	// The server cannot do it now. All are cases of the first.
	ErrUnavailable    = sentinel("unavailable")
	ErrOutcomeUnknown = sentinel("outcome_unknown") // it may have been done, or not
	ErrLeaderAway     = sentinel("leader_away")     // who leads the root is not connected
	ErrReadOnly       = sentinel("read_only")       // the commit log cannot be written
	ErrClosed         = sentinel("closed")          // the database is not open

	// The server's commit log is not as it should be. All are cases of the first.
	ErrLog     = sentinel("log")
	ErrCorrupt = sentinel("corrupt") // a record does not check
	ErrLocked  = sentinel("locked")  // another process has the directory

	// The session is over: another connection has taken its tega id.
	ErrTakenOver = sentinel("taken_over")
)

// code is what the table has of a code.
type code struct {
	status int
	parent string
}

// codes is the table of tega/errors.py: the status of each code, and the code that it is a special
// case of. A test compares the two.
var codes = map[string]code{
	"internal":            {500, ""},
	"malformed":           {400, ""},
	"not_understood":      {400, "malformed"},
	"unauthorized":        {401, ""},
	"forbidden":           {403, ""},
	"not_found":           {404, ""},
	"no_such_version":     {404, "not_found"},
	"no_such_transaction": {404, "not_found"},
	"no_such_function":    {404, "not_found"},
	"no_such_command":     {404, "not_found"},
	"no_peer":             {404, "not_found"},
	"method_not_allowed":  {405, ""},
	"refused":             {409, ""},
	"collision":           {409, "refused"},
	"leaf_in_the_way":     {409, "refused"},
	"ephemeral_conflict":  {409, "refused"},
	"no_session":          {409, "refused"},
	"led_elsewhere":       {409, "refused"},
	"diverged":            {409, "refused"},
	"too_large":           {413, ""},
	"url_too_long":        {414, ""},
	"over_limit":          {429, ""},
	"call_failed":         {502, ""},
	"owner_gone":          {502, "call_failed"},
	"call_timeout":        {504, ""},
	"unavailable":         {503, ""},
	"read_only":           {503, "unavailable"},
	"outcome_unknown":     {503, "unavailable"},
	"leader_away":         {503, "unavailable"},
	"closed":              {503, "unavailable"},
	"log":                 {500, ""},
	"corrupt":             {500, "log"},
	"locked":              {500, "log"},
	"taken_over":          {0, ""},
}

func sentinel(code string) *Error {
	return &Error{Code: code, Message: "see the code"}
}

func refusal(code, format string, args ...any) *Error {
	return &Error{Code: code, Status: codes[code].status, Message: fmt.Sprintf(format, args...)}
}

// told is a refusal as the server tells it: {"code", "message", ...}.
func told(body []byte) *Error {
	made := &Error{}
	if err := json.Unmarshal(body, &made.Details); err != nil {
		made.Message = fmt.Sprintf("%.200s", body)
		return made
	}
	take := func(name string, into any) {
		// What is not of the type that is expected stays with the details.
		if json.Unmarshal(made.Details[name], into) == nil && name != "path" {
			delete(made.Details, name)
		}
	}
	take("code", &made.Code)
	take("message", &made.Message)
	take("path", &made.Path)
	made.Status = codes[made.Code].status
	return made
}

// malformed is what the server would say to what the pure protocol refuses.
func malformed(err error) error {
	var wrong *wire.Error
	if errors.As(err, &wrong) {
		return refusal(wrong.Code, "%s", wrong.Message)
	}
	return err
}

// unknown is the error of a change, or a call, that was sent and has had no answer.
func unknown(txid string, cause error) *Error {
	why := strings.TrimPrefix(cause.Error(), "tega: ")
	made := refusal("outcome_unknown", "%s; it may have been done", why)
	made.TxID, made.cause = txid, cause
	return made
}

// canceled is the error of a context that has ended.
func canceled(ctx context.Context, what string) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return fmt.Errorf("tega: %s: %w: %w", what, ctx.Err(), cause)
	}
	return fmt.Errorf("tega: %s: %w", what, ctx.Err())
}
