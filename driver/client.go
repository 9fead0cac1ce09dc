package tega

import (
	"context"
	"encoding/json"
	"net/http"

	"tega.internal/tega/internal/wire"
)

// Client is a client of one server. Its methods may be used from any goroutine.
type Client struct {
	session *session
	http    *http.Client
}

// Dial connects to a server and begins a session. The context bounds that alone; the client lasts
// until Close.
//
// Where there is no connection to be had, or the server does not want this client, there is an
// error at once; later on, a connection that is lost is made anew for as long as it takes.
func Dial(ctx context.Context, options Options) (*Client, error) {
	s, err := begin(ctx, options)
	if err != nil {
		return nil, err
	}
	return &Client{s, newHTTP(s)}, nil
}

// Close ends the session, and with it what is ephemeral. What is under way fails with
// ErrClientClosed. It waits until all of the driver has ended, and up to five seconds for functions
// that it serves; there is an error only where one of those goes on all the same.
func (c *Client) Close() error {
	defer c.http.CloseIdleConnections()
	return c.session.close()
}

// Done is closed when the session is over: because of Close, or because the server has ended it for
// good, as when another client takes over its tega id.
func (c *Client) Done() <-chan struct{} { return c.session.done }

// Err is why the session is over; nil while it is not.
func (c *Client) Err() error { return c.session.why() }

// TegaID is the tega id of this client.
func (c *Client) TegaID() string { return c.session.options.TegaID }

// Result is what came of a transaction.
type Result struct {
	// Seq is its sequence number; of one that only reads the newest one.
	Seq int64
	// Versions has the version that it made of each root.
	Versions map[string]int64
	// Found has what each Get and GetRegex has found, in order.
	Found []Found
}

// Found is what a read has found.
type Found struct {
	// Version is that of the node.
	Version int64
	// Instance is JSON; of a GetRegex an object of matches by path.
	Instance json.RawMessage
	// Err is the refusal, where there is nothing.
	Err  error
	path string
}

// Into reads the instance into a value, as [Change.Into] does.
func (f Found) Into(value any) error {
	if f.Err != nil {
		return f.Err
	}
	return decode(f.Instance, value, f.path)
}

// Match is what a pattern matches.
type Match struct {
	// Groups are those that were captured, by level; a level without any is left out.
	Groups [][]string `json:"groups"`
	// Instance is JSON.
	Instance json.RawMessage `json:"instance"`
}

// Into reads the instance into a value, as [Change.Into] does.
func (m Match) Into(value any) error { return decode(m.Instance, value, "a match") }

// Tx carries operations out as one transaction: all of them or, with an error, none. It is sent
// again after a lost connection, and done once at most.
func (c *Client) Tx(ctx context.Context, operations ...Op) (*Result, error) {
	return c.TxWithID(ctx, c.session.newTxID(), operations...)
}

// TxWithID is [Client.Tx] with a transaction id of the caller's: sent again with the same one, be
// it by another program, it gives the first result and changes nothing. The server remembers at
// least the last 10 000 of them.
func (c *Client) TxWithID(ctx context.Context, txid string, operations ...Op) (*Result, error) {
	body, err := c.session.transact(ctx, txid, operations)
	if err != nil {
		return nil, err
	}
	return c.read(body, operations)
}

func (c *Client) read(body []byte, operations []Op) (*Result, error) {
	var given struct {
		Seq      int64
		Versions map[string]int64
		Results  []struct {
			Instance json.RawMessage
			Version  int64
			Error    json.RawMessage
		}
	}
	if err := decode(body, &given, "the answer"); err != nil {
		return nil, err
	}
	made := &Result{Seq: given.Seq, Versions: given.Versions}
	for _, op := range operations {
		if op.Ope != "GET" || len(made.Found) == len(given.Results) {
			continue
		}
		one := given.Results[len(made.Found)]
		found := Found{Version: one.Version, Instance: one.Instance, path: op.Path}
		if one.Error != nil {
			found.Err = told(one.Error)
		}
		made.Found = append(made.Found, found)
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.session.subscriptions.heardOf(made.Seq)
	return made, nil
}

// Put replaces what stands at a dotted path with a value, which is written as encoding/json does.
// Missing parents are made.
func (c *Client) Put(
	ctx context.Context, path string, value any, options ...Option,
) (*Result, error) {
	return c.Tx(ctx, Put(path, value, options...))
}

// PutEphemeral is [Client.Put] of what goes when the session of this client ends: when it is
// closed, or the server has heard nothing of it for too long. After a lost connection it is put
// again.
func (c *Client) PutEphemeral(
	ctx context.Context, path string, value any, options ...Option,
) (*Result, error) {
	return c.Tx(ctx, PutEphemeral(path, value, options...))
}

// Delete removes what stands at a dotted path, and every parent that it leaves empty.
func (c *Client) Delete(ctx context.Context, path string, options ...Option) (*Result, error) {
	return c.Tx(ctx, Delete(path, options...))
}

// Get reads what stands at a dotted path into a value, as encoding/json does; into an interface,
// numbers are json.Number. The version of the node is what IfVersion takes.
func (c *Client) Get(
	ctx context.Context, path string, into any, options ...Option,
) (version int64, err error) {
	result, err := c.Tx(ctx, Get(path, options...))
	if err != nil {
		return 0, err
	}
	if len(result.Found) == 0 {
		return 0, refusal("internal", "the answer holds no result")
	}
	found := result.Found[0]
	return found.Version, found.Into(into)
}

// GetRegex reads all that a pattern matches: one regular expression (RE2) a level, split at \.,
// each matched from the start of the key. Without a match there is an empty map.
func (c *Client) GetRegex(
	ctx context.Context, pattern string, options ...Option,
) (map[string]Match, error) {
	result, err := c.Tx(ctx, GetRegex(pattern, options...))
	if err != nil {
		return nil, err
	}
	var matches map[string]Match
	if len(result.Found) == 0 {
		return nil, refusal("internal", "the answer holds no result")
	}
	err = result.Found[0].Into(&matches)
	return matches, err
}

// Call calls the function at a dotted path with arguments, and reads what it returns into a value,
// unless that is nil. It is called once at most: where the connection is lost meanwhile,
// errors.Is(err, ErrOutcomeUnknown) says that it may have run.
func (c *Client) Call(ctx context.Context, path string, into any, args ...any) error {
	return c.CallKwargs(ctx, path, into, nil, args...)
}

// CallKwargs is [Client.Call] with arguments by name, too.
func (c *Client) CallKwargs(
	ctx context.Context, path string, into any, kwargs map[string]any, args ...any,
) error {
	keys, err := wire.ParsePath(path)
	if err != nil {
		return malformed(err)
	}
	if args == nil {
		args = []any{}
	}
	if kwargs == nil {
		kwargs = map[string]any{}
	}
	body, err := encode(map[string]any{"args": args, "kwargs": kwargs})
	if err != nil {
		return err
	}
	result, err := c.session.ask(ctx, &asked{once: true, changes: true, message: &wire.Request{
		Type: "RPC", TegaID: c.TegaID(), Path: keys.String(), Body: body,
	}})
	if err != nil {
		return err
	}
	return decode(result, into, "what "+path+" returned")
}
