package tega

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"tega.internal/tega/internal/wire"
)

// What a change does.
const (
	OpePut      = "PUT"
	OpeDelete   = "DELETE"
	OpeRollback = "ROLLBACK"
)

// Change is a change that somebody else made.
type Change struct {
	// Ope is OpePut, OpeDelete or OpeRollback.
	Ope string `json:"ope"`
	// Path is where, dotted: at or below what is subscribed to; of a ROLLBACK the root.
	Path string `json:"path"`
	// TegaID is who made it.
	TegaID string `json:"tega_id"`
	// Version is the version that it made of the root.
	Version int64 `json:"version"`
	// Backto says by how many versions a ROLLBACK went back: it is negative.
	Backto int64 `json:"backto,omitempty"`
	// Instance is what was put, or removed, as JSON; null with ROLLBACK.
	Instance json.RawMessage `json:"instance"`
}

// Into reads the instance into a value, as encoding/json does; into an interface, numbers are
// json.Number.
func (c Change) Into(value any) error { return decode(c.Instance, value, c.Path) }

// Notification has the changes of one transaction, in order, as far as they were subscribed to.
type Notification struct {
	// Seq is the sequence number of the transaction.
	Seq int64
	// Place is where [From] goes on after this notification: the number, and the life of the
	// database.
	Place string
	// Resync says that these are no changes, but how it stands by now, as what has happened since
	// was not kept: a PUT for each part that is there; of a path with nothing there a DELETE with
	// null; of a pattern without any match nothing at all.
	Resync  bool
	Changes []Change
}

// Message is what somebody else has published.
type Message struct {
	// Channel is a dotted path.
	Channel string
	// TegaID is who has published it.
	TegaID string
	// Body is JSON.
	Body json.RawMessage
}

// Into reads the message into a value, as [Change.Into] does.
func (m Message) Into(value any) error { return decode(m.Body, value, m.Channel) }

// stream is what both kinds of subscriptions have.
type stream struct {
	listener *listener
	leave    context.CancelCauseFunc
	over     chan struct{}
}

// errLeft is why a stream ends that was closed.
var errLeft = errors.New("closed")

// Close ends it, and its channel. What has come and was not read is dropped.
func (s *stream) Close() {
	s.leave(errLeft)
	<-s.over
}

// Err is why the channel was closed: nil after Close, the cause of its context, the refusal of a
// server that does not let it listen any more, or what [Client.Err] says. A connection that is lost
// does not close it.
func (s *stream) Err() error {
	s.listener.session.mu.Lock()
	defer s.listener.session.mu.Unlock()
	if s.listener.err == errLeft {
		return nil
	}
	return s.listener.err
}

// Subscription is what [Client.Subscribe] gives.
//
// Notifications come in the order of the commits, each once, nothing left out, whatever becomes of
// the connection. Up to Options.Buffer bytes wait for a slow reader; one that is further behind is
// given the others from what the server keeps, once it has read those. It holds up nothing else,
// and where the server does not keep so much, it gets a Resync.
type Subscription struct {
	// C is closed at the end; Err has the reason.
	C <-chan Notification
	stream
}

// Messages is what [Client.Messages] gives.
type Messages struct {
	// C is closed at the end; Err has the reason.
	C <-chan Message
	stream
}

// Lost is how many messages came while Options.Buffer bytes were waiting to be read, and are lost:
// messages are kept nowhere. Those that are lost while the connection is, or at a server that the
// client falls behind of, are not counted.
func (m *Messages) Lost() uint64 {
	m.listener.session.mu.Lock()
	defer m.listener.session.mu.Unlock()
	return m.listener.lost
}

// SubscribeOption is how to subscribe.
type SubscribeOption func(*subscribing)

type subscribing struct {
	scope Scope
	from  string
}

// InScope says from where messages are heard.
func InScope(scope Scope) SubscribeOption { return func(s *subscribing) { s.scope = scope } }

// From gives first what has changed since a place: that of a notification, or a sequence number;
// "0" is from the beginning. Where that is not known any more, there is a Resync.
func From(place string) SubscribeOption { return func(s *subscribing) { s.from = place } }

// Subscribe hears of the changes that others make at, below and above a dotted path. A change above
// is cut down to the part that is subscribed to.
//
// It waits until the server has confirmed it, and ends with the context, with Close, or with the
// client.
func (c *Client) Subscribe(
	ctx context.Context, path string, options ...SubscribeOption,
) (*Subscription, error) {
	return c.subscribe(ctx, path, false, options)
}

// SubscribeRegex is [Client.Subscribe] to all that matches a pattern: one regular expression (RE2)
// a level, split at \., each matched from the start of the key.
func (c *Client) SubscribeRegex(
	ctx context.Context, pattern string, options ...SubscribeOption,
) (*Subscription, error) {
	return c.subscribe(ctx, pattern, true, options)
}

func (c *Client) subscribe(
	ctx context.Context, text string, regex bool, options []SubscribeOption,
) (*Subscription, error) {
	to := make(chan Notification)
	made, err := listen(ctx, c.session, text, regex, true, options, to)
	if err != nil {
		return nil, err
	}
	return &Subscription{to, *made}, nil
}

// Messages hears what others publish on a channel: a dotted path, which matches whole.
//
// It waits until the server has confirmed it, and ends with the context, with Close, or with the
// client.
func (c *Client) Messages(
	ctx context.Context, channel string, options ...SubscribeOption,
) (*Messages, error) {
	return c.messages(ctx, channel, false, options)
}

// MessagesRegex is [Client.Messages] of all channels that match a pattern, as in
// [Client.SubscribeRegex].
func (c *Client) MessagesRegex(
	ctx context.Context, pattern string, options ...SubscribeOption,
) (*Messages, error) {
	return c.messages(ctx, pattern, true, options)
}

func (c *Client) messages(
	ctx context.Context, text string, regex bool, options []SubscribeOption,
) (*Messages, error) {
	to := make(chan Message)
	made, err := listen(ctx, c.session, text, regex, false, options, to)
	if err != nil {
		return nil, err
	}
	return &Messages{to, *made}, nil
}

func listen[T any](
	ctx context.Context,
	s *session,
	text string,
	regex, changes bool,
	options []SubscribeOption,
	to chan<- T,
) (*stream, error) {
	given := subscribing{scope: s.options.Scope}
	for _, option := range options {
		option(&given)
	}
	if given.scope != Local && given.scope != Global {
		return nil, refusal("malformed", "scope %q: it is local or global", given.scope)
	}
	since, err := placed(given.from)
	if err != nil {
		return nil, err
	}
	one, err := newSubscription(text, regex, given.scope)
	if err != nil {
		return nil, err
	}
	ctx, leave := context.WithCancelCause(ctx)
	who := &listener{session: s, text: one.text, changes: changes, wake: make(chan struct{}, 1)}
	made := &stream{who, leave, make(chan struct{})}
	s.mu.Lock()
	if err := s.over; err != nil {
		s.mu.Unlock()
		leave(errLeft)
		return nil, err
	}
	s.subscriptions.add(who, one, since)
	s.group.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.group.Done()
		defer close(made.over)
		pump(ctx, who, to)
	}()
	// Messages are taken in order: the answer to any request shows that the subscription holds.
	if err := s.settle(ctx); err != nil {
		made.Close()
		return nil, err
	}
	if err := made.Err(); err != nil {
		made.Close()
		return nil, err
	}
	return made, nil
}

// settle waits until the server has taken all that was sent before.
func (s *session) settle(ctx context.Context) error {
	one, err := s.transaction(s.newTxID(), nil)
	if err != nil {
		return err
	}
	_, err = s.ask(ctx, one)
	return err
}

// placed reads a place; nil where none is given.
func placed(place string) (*wire.Since, error) {
	if place == "" {
		return nil, nil
	}
	digits, life, hasLife := strings.Cut(place, "@")
	seq, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || seq < 0 || hasLife && life == "" || strings.ContainsAny(life, " \r\n") {
		return nil, refusal(
			"malformed", "place %q: give that of a notification, or a sequence number", place,
		)
	}
	return &wire.Since{Seq: seq, Life: life}, nil
}

// Publish tells a value to all others that hear the messages of a channel now; on other servers to
// those of Global scope. It is stored nowhere. It is sent once there is a connection, at most once,
// and has no answer: where the server refuses it, the log alone says so.
func (c *Client) Publish(ctx context.Context, channel string, value any) error {
	path, err := wire.ParsePath(channel)
	if err != nil {
		return malformed(err)
	}
	text, err := encode(value)
	if err != nil {
		return err
	}
	body, err := marshal(map[string]json.RawMessage{"message": text})
	if err != nil {
		return err
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	ready := func() bool { return s.link != nil && s.idle() }
	if err := s.await(ctx, ready); err != nil {
		return err
	}
	s.link.send(&wire.Publish{Channel: path.String(), Body: body})
	return nil
}
