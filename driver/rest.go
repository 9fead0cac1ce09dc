package tega

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"tega.internal/tega/internal/wire"
)

func newHTTP(s *session) *http.Client {
	transport := &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		TLSClientConfig:   s.tls(),
		ForceAttemptHTTP2: false,
		IdleConnTimeout:   s.options.PingTimeout,
	}
	// A server sends nobody elsewhere; whoever does might be after the token.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: stay}
}

// rest is a request over HTTP.
type rest struct {
	method, path string
	query        url.Values
	body         []byte
	// key is the id under which a change is done once at most.
	key string
	// again says that it may be sent again, reads that it changes nothing.
	again, reads bool
}

// do sends a request, and reads what is answered into a value.
func (c *Client) do(ctx context.Context, request rest, into any) error {
	s := c.session
	s.mu.Lock()
	if s.over != nil {
		defer s.mu.Unlock()
		return s.over
	}
	s.group.Add(1)
	s.mu.Unlock()
	defer s.group.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.life, func() { cancel(ErrClientClosed) })
	defer stop()
	pause := pause{first: s.options.firstPause}
	sent := false
	for {
		if !pause.wait(ctx) {
			return request.gaveUp(sent, canceled(ctx, request.method+" "+request.path))
		}
		if over := s.why(); over != nil {
			return request.gaveUp(sent, over)
		}
		err := c.doOnce(ctx, request, into)
		var lost *lostError
		if !errors.As(err, &lost) {
			return err
		}
		sent = sent || lost.sent
		if sent && !request.again && ctx.Err() == nil {
			return request.gaveUp(sent, fmt.Errorf("tega: %w", lost.cause))
		}
		s.log.Debug("tega: trying again", "request", request.path, "reason", lost)
	}
}

// gaveUp is the error of a request without an answer.
func (r rest) gaveUp(sent bool, cause error) error {
	if !sent || r.reads {
		return cause
	}
	return unknown(cmp.Or(r.key, r.query.Get("txid")), cause)
}

// lostError says that there was no answer, and whether the server may have been asked.
type lostError struct {
	cause error
	sent  bool
}

func (e *lostError) Error() string { return e.cause.Error() }

func (c *Client) doOnce(ctx context.Context, request rest, into any) error {
	where := c.session.at.url("http", request.path)
	if len(request.query) > 0 {
		where += "?" + request.query.Encode()
	}
	var sent atomic.Bool
	connected := func(httptrace.GotConnInfo) { sent.Store(true) }
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: connected})
	made, err := http.NewRequestWithContext(
		traced, request.method, where, bytes.NewReader(request.body),
	)
	if err != nil {
		return fmt.Errorf("tega: %w", err)
	}
	made.Header = c.session.header()
	if request.key != "" {
		made.Header.Set("Idempotency-Key", request.key)
	}
	if request.body != nil {
		made.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(made)
	if err != nil {
		return &lostError{err, sent.Load()}
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return readRefusal(response)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return &lostError{err, true}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	return decode(text, into, request.path)
}

// Manage gives a management command, such as Manage(ctx, "GET", "health", nil, &health) or
// Manage(ctx, "POST", "ss", url.Values{"tega_id": {"ops"}}, nil); doc/reference.md of tega db has
// them all. What is answered is read into a value, unless that is nil. Unlike a GET, a POST is sent
// once.
func (c *Client) Manage(
	ctx context.Context, method, command string, query url.Values, into any,
) error {
	return c.do(ctx, rest{
		method: method, path: "/_" + url.PathEscape(command), query: query,
		again: method == http.MethodGet, reads: method == http.MethodGet,
	}, into)
}

// Roots has the newest version of each root.
func (c *Client) Roots(ctx context.Context) (map[string]int64, error) {
	var roots map[string]int64
	err := c.Manage(ctx, http.MethodGet, "roots", nil, &roots)
	return roots, err
}

// Old has the old versions of each root that can still be read, oldest first.
func (c *Client) Old(ctx context.Context) (map[string][]int64, error) {
	var listed []map[string][]int64
	if err := c.Manage(ctx, http.MethodGet, "old", nil, &listed); err != nil {
		return nil, err
	}
	old := map[string][]int64{}
	for _, one := range listed {
		for root, versions := range one {
			old[root] = versions
		}
	}
	return old, nil
}

// changed is what a change over HTTP is answered.
type changed struct {
	Seq      int64            `json:"seq"`
	Versions map[string]int64 `json:"versions"`
}

func (c changed) result() *Result { return &Result{Seq: c.Seq, Versions: c.Versions} }

// Rollback makes the content of an old version of a root its newest: by its number or, negative, by
// so many versions back.
func (c *Client) Rollback(ctx context.Context, root string, backto int64) (*Result, error) {
	var made changed
	err := c.do(ctx, rest{
		method: http.MethodPost, path: "/_rollback", key: c.session.newTxID(), again: true,
		query: url.Values{
			"root_oid": {root}, "backto": {strconv.FormatInt(backto, 10)}, "tega_id": {c.TegaID()},
		},
	}, &made)
	if err != nil {
		return nil, err
	}
	return made.result(), nil
}

// Transaction is one that is open at the server, until Commit or Cancel; left alone for long it
// expires. Where all operations are known at once, [Client.Tx] does with one message. It is for one
// goroutine at a time.
type Transaction struct {
	// ID is its id at the server.
	ID     string
	client *Client
	// staged are its operations, for what they do to ephemeral nodes.
	staged []Op
}

// Begin opens a transaction.
func (c *Client) Begin(ctx context.Context) (*Transaction, error) {
	var given struct{ TxID string }
	// One whose answer gets lost stays empty, and expires.
	err := c.do(ctx, rest{
		method: http.MethodPost, path: "/_begin", again: true,
		query: url.Values{"tega_id": {c.TegaID()}},
	}, &given)
	if err != nil {
		return nil, err
	}
	return &Transaction{ID: given.TxID, client: c}, nil
}

// Add adds operations to the transaction, in order: those of [Put], [PutEphemeral] and [Delete].
// They are judged at its commit.
func (t *Transaction) Add(ctx context.Context, operations ...Op) error {
	for _, op := range operations {
		if err := t.add(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

func (t *Transaction) add(ctx context.Context, op Op) error {
	if op.err != nil {
		return op.err
	}
	if op.Ope == "GET" {
		return refusal("malformed", "a transaction that is open takes changes alone: read with Get")
	}
	query := url.Values{"txid": {t.ID}, "tega_id": {t.client.TegaID()}}
	if op.Version != nil {
		query.Set("version", strconv.FormatInt(*op.Version, 10))
	}
	if op.Ephemeral {
		query.Set("ephemeral", "true")
	}
	path, err := wire.ParsePath(op.Path)
	if err != nil {
		return malformed(err)
	}
	// Staged twice, a put is the same put; a second DELETE would find nothing to delete.
	request := rest{
		method: op.Ope,
		path:   toURL(path),
		query:  query,
		body:   op.Instance,
		again:  op.Ope == "PUT",
	}
	if err := t.client.do(ctx, request, nil); err != nil {
		return err
	}
	t.staged = append(t.staged, op)
	return nil
}

// Candidate has the trees that the transaction touches, in the internal form, as they would be
// after its commit, by root. One that it would delete is {"_oid": ROOT, "_deleted": true}.
func (t *Transaction) Candidate(ctx context.Context) (map[string]json.RawMessage, error) {
	var trees []json.RawMessage
	request := t.command("cand")
	request.reads = true
	if err := t.client.do(ctx, request, &trees); err != nil {
		return nil, err
	}
	made := map[string]json.RawMessage{}
	for _, tree := range trees {
		var head struct {
			Oid string `json:"_oid"`
		}
		if err := decode(tree, &head, "a candidate"); err != nil {
			return nil, err
		}
		made[head.Oid] = tree
	}
	return made, nil
}

// Commit applies the transaction, all of it or nothing. Where the outcome is unknown it may be
// asked again: it is done once at most.
func (t *Transaction) Commit(ctx context.Context) (*Result, error) {
	var made changed
	if err := t.client.do(ctx, t.command("commit"), &made); err != nil {
		return nil, err
	}
	s := t.client.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range t.staged {
		if op.Ephemeral || op.Ope == "DELETE" {
			s.ephemerals.apply(op)
		}
	}
	return made.result(), nil
}

// Cancel drops the transaction. One that the server does not know any more is dropped already.
func (t *Transaction) Cancel(ctx context.Context) error {
	err := t.client.do(ctx, t.command("cancel"), nil)
	if errors.Is(err, ErrNoSuchTransaction) {
		return nil
	}
	return err
}

func (t *Transaction) command(name string) rest {
	return rest{
		method: http.MethodPost,
		path:   "/_" + name,
		query:  url.Values{"txid": {t.ID}},
		again:  true,
	}
}

// toURL writes a path as a URL: one percent-encoded key a segment.
func toURL(path wire.Path) string {
	var made strings.Builder
	for _, key := range path {
		made.WriteByte('/')
		made.WriteString(url.PathEscape(key))
	}
	made.WriteByte('/')
	return made.String()
}
