package tega

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"tega.internal/tega/internal/wire"
)

// farewellOfCalls is how long Close waits for functions that are under way.
const farewellOfCalls = 5 * time.Second

// Func is a function that a client offers. What it returns is written as JSON; its error goes to
// the caller as call_failed, with its text. The context ends with the client.
type Func func(ctx context.Context, call *Call) (any, error)

// Call is a call of a function.
type Call struct {
	// Path is that of the function.
	Path string
	// Caller is the tega id of who calls.
	Caller string
	// Args and Kwargs are what it is called with, as JSON.
	Args   []json.RawMessage
	Kwargs map[string]json.RawMessage
}

// Into reads the arguments into values, one each: exactly so many must be given, and none by name.
func (c *Call) Into(values ...any) error {
	if len(c.Args) != len(values) || len(c.Kwargs) != 0 {
		return fmt.Errorf("%s takes %d arguments, and %d were given, and %d by name",
			c.Path, len(values), len(c.Args), len(c.Kwargs))
	}
	for number, value := range values {
		if err := decode(c.Args[number], value, fmt.Sprintf("argument %d", number+1)); err != nil {
			return err
		}
	}
	return nil
}

// functions are those that a session serves, by path.
type functions struct {
	session *session
	served  map[string]Func
	// running are the calls under way.
	running sync.WaitGroup
}

func newFunctions(s *session) *functions {
	return &functions{session: s, served: map[string]Func{}}
}

// Serve offers a function at a dotted path, until Unserve or the end of the session. Calls run
// beside each other, each in a goroutine of its own; a panic is an error of that call.
func (c *Client) Serve(ctx context.Context, path string, function Func) error {
	keys, err := wire.ParsePath(path)
	if err != nil {
		return malformed(err)
	}
	s, key := c.session, keys.String()
	name := strings.NewReplacer(".", "_", "(", "_", ")", "_").Replace(keys[len(keys)-1])
	s.mu.Lock()
	before := s.functions.served[key]
	// Calls may come before the answer.
	s.functions.served[key] = function
	s.mu.Unlock()
	_, err = c.PutEphemeral(ctx, path, "%"+s.options.TegaID+"."+name)
	if err != nil && !errors.Is(err, ErrOutcomeUnknown) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.functions.served[key] = before; before == nil {
			delete(s.functions.served, key)
		}
	}
	return err
}

// Unserve offers a function no more.
func (c *Client) Unserve(ctx context.Context, path string) error {
	keys, err := wire.ParsePath(path)
	if err != nil {
		return malformed(err)
	}
	s := c.session
	s.mu.Lock()
	_, there := s.functions.served[keys.String()]
	delete(s.functions.served, keys.String())
	s.mu.Unlock()
	if !there {
		return refusal("no_such_function", "%s serves nothing at %s", s.options.TegaID, path)
	}
	// It may have gone with a connection.
	if _, err := c.Delete(ctx, path); !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// asked is told, under the session's lock, that somebody calls.
func (f *functions) asked(l *link, request *wire.Request) {
	if request.Type != "RPC" {
		why := refusal("no_peer", "%s is for servers among themselves", request.Type)
		f.answer(l, request, nil, why)
		return
	}
	path, err := wire.ParsePath(request.Path)
	function := f.served[path.String()]
	if err != nil || function == nil {
		why := refusal("no_such_function", "there is no function at %s any more", request.Path)
		f.answer(l, request, nil, why)
		return
	}
	call := &Call{Path: path.String(), Caller: request.TegaID}
	if why := call.read(request.Body); why != nil {
		f.answer(l, request, nil, why)
		return
	}
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		result, why := f.run(function, call)
		f.session.mu.Lock()
		defer f.session.mu.Unlock()
		f.answer(l, request, result, why)
	}()
}

func (c *Call) read(body []byte) *Error {
	var given struct {
		Args   []json.RawMessage          `json:"args"`
		Kwargs map[string]json.RawMessage `json:"kwargs"`
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := json.Unmarshal(body, &given); err != nil {
			return refusal("malformed", "malformed arguments: %v", err)
		}
	}
	c.Args, c.Kwargs = given.Args, given.Kwargs
	return nil
}

// run runs a function, whatever it does. An error is call_failed: even of a refusal that it has met
// itself, as that says nothing of this call.
func (f *functions) run(function Func, call *Call) (result json.RawMessage, why *Error) {
	defer func() {
		if cause := recover(); cause != nil {
			f.session.log.Error("tega: a function panicked", "path", call.Path, "panic", cause,
				"stack", string(debug.Stack()))
			why = refusal("call_failed", "the function at %s panicked: %v", call.Path, cause)
		}
	}()
	made, err := function(f.session.life, call)
	if err != nil {
		return nil, refusal("call_failed", "%v", err)
	}
	if result, err = encode(made); err != nil {
		return nil, refusal(
			"call_failed", "the function at %s returned what is not JSON: %v", call.Path, err,
		)
	}
	return result, nil
}

// answer answers a call, under the session's lock.
func (f *functions) answer(l *link, request *wire.Request, result json.RawMessage, why *Error) {
	response := &wire.Response{
		SeqNo:  request.SeqNo,
		Type:   request.Type,
		TegaID: request.TegaID,
		Body:   result,
	}
	if why != nil {
		// Texts can always be written.
		text, _ := marshal(map[string]string{"code": why.Code, "message": why.Message})
		response.IsError, response.Body = true, text
	}
	if f.session.link != l {
		f.session.log.Debug("tega: nobody waits any more for a call", "path", request.Path)
		return
	}
	l.send(response)
}

// wait waits for the calls under way, for a while.
func (f *functions) wait() error {
	over := make(chan struct{})
	go func() {
		f.running.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-time.After(farewellOfCalls):
		return errors.New("tega: functions are still running, though their context has ended")
	}
}
