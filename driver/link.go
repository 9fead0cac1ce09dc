package tega

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"tega.internal/tega/internal/wire"
)

const (
	// maxMessage is how many bytes a message of the server may have.
	maxMessage = 256 << 20
	// maxBacklog is how many bytes may wait for the network until callers wait, too.
	maxBacklog = 1 << 20
	// farewell is how long the end of a connection may take.
	farewell = 2 * time.Second

	closeTakenOver     = 4001
	closeNotUnderstood = 4003
	closeRevoked       = 4004
)

// final is an error after which no other connection shall be tried.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// frame is something to be sent: a message, a ping or a pong.
type frame struct {
	kind int // as the library names them
	data []byte
}

// link is one connection of a session. What it is to send is guarded by the session's lock.
type link struct {
	session  *session
	socket   *websocket.Conn
	raw      *conn
	protocol *wire.Connection
	waiting  []frame
	backlog  int
	leaving  bool
	// told is how many bytes the largest body has that was sent with anything but a request.
	told int
	// wake is told that something waits.
	wake chan struct{}
	// gone is closed when the connection is over.
	gone chan struct{}
}

// connect makes a connection and begins the session on it. The error is final where trying again
// will not help.
func connect(ctx context.Context, s *session) (*link, *wire.SessionAck, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.PingTimeout)
	defer cancel()
	l := newLink(s)
	var giveUp func() bool
	dialer := websocket.Dialer{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: s.tls(),
		WriteBufferSize: 16 << 10,
		ReadBufferSize:  16 << 10,
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			made, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			l.raw = &conn{Conn: made, patience: s.options.PingTimeout, begun: time.Now()}
			giveUp = context.AfterFunc(ctx, func() { made.Close() })
			return l.raw, nil
		},
	}
	socket, response, err := dialer.DialContext(ctx, s.at.url("ws", "/_pubsub"), s.header())
	if giveUp != nil {
		defer giveUp()
	}
	if err != nil {
		return nil, nil, s.unreachable(ctx, response, err)
	}
	l.socket = socket
	socket.SetReadLimit(maxMessage)
	ack, err := l.greet()
	if err != nil {
		socket.Close()
		return nil, nil, s.unreachable(ctx, nil, err)
	}
	if giveUp != nil && !giveUp() {
		socket.Close()
		return nil, nil, s.unreachable(ctx, nil, ctx.Err())
	}
	return l, ack, nil
}

// newLink is one without any connection.
func newLink(s *session) *link {
	return &link{session: s, protocol: wire.NewConnection(wire.Client),
		wake: make(chan struct{}, 1), gone: make(chan struct{})}
}

// unreachable is why there is no connection.
func (s *session) unreachable(ctx context.Context, response *http.Response, err error) error {
	if errors.As(err, &final{}) {
		return err
	}
	if response != nil && response.StatusCode >= 300 {
		err = lasting(readRefusal(response))
		if errors.As(err, &final{}) {
			return err
		}
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("tega: cannot connect to a server at %s: %w", s.at.address, err)
}

// greet says who this is, and hears whether that is welcome.
func (l *link) greet() (*wire.SessionAck, error) {
	hello, err := l.protocol.Send(&wire.Session{TegaID: l.session.options.TegaID, Scope: "local"})
	if err != nil {
		return nil, err
	}
	if err := l.socket.WriteMessage(websocket.TextMessage, hello); err != nil {
		return nil, err
	}
	text, err := receive(l.socket)
	if err != nil {
		return nil, l.ended(err)
	}
	message, err := l.protocol.Receive(text)
	if err != nil {
		return nil, err
	}
	switch message := message.(type) {
	case *wire.SessionAck:
		return message, nil
	case *wire.Told:
		return nil, endOf(message)
	default:
		return nil, fmt.Errorf("it begins with %s", message.Command())
	}
}

// endOf is the error of an ERROR that ends a session.
func endOf(message *wire.Told) error {
	made := told(message.Body)
	made.Code, made.Status = message.Code, codes[message.Code].status
	return lasting(made)
}

// lasting marks a refusal as final, unless it may have gone by the next try: where the server has
// trouble of its own or too much to do, or a proxy speaks for one that is just being started.
func lasting(why *Error) error {
	switch status := why.Status; {
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return why
	case why.Code == "" && status != http.StatusUnauthorized && status != http.StatusForbidden:
		return why
	}
	return final{why}
}

// ended is the error of a connection that has ended so: final where the server wants no other one.
func (l *link) ended(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		switch closed.Code {
		case closeTakenOver:
			return final{refusal("taken_over", "another connection has this tega id now")}
		case closeNotUnderstood:
			return final{refusal("not_understood", "%s", closed.Text)}
		case closeRevoked:
			return final{refusal("unauthorized", "%s", closed.Text)}
		}
	}
	return err
}

// run reads until the connection is over, and says why.
func (l *link) run(ctx context.Context) error {
	var writing sync.WaitGroup
	writing.Add(1)
	go func() {
		defer writing.Done()
		l.write()
	}()
	stop := context.AfterFunc(ctx, l.leave)
	defer stop()
	// The library would answer on its own, with a second for the network to take it: a slow one
	// would be torn down. What goes out goes out by one goroutine.
	l.socket.SetPingHandler(func(payload string) error {
		l.session.mu.Lock()
		defer l.session.mu.Unlock()
		l.enqueue(frame{websocket.PongMessage, []byte(payload)})
		return nil
	})
	l.socket.SetPongHandler(func(payload string) error {
		l.session.ponged(l, payload)
		return nil
	})
	err := l.read()
	close(l.gone)
	l.socket.Close()
	writing.Wait()
	return err
}

func (l *link) read() error {
	for {
		text, err := receive(l.socket)
		if err != nil {
			return l.ended(err)
		}
		if err := l.session.received(l, text); err != nil {
			return err
		}
	}
}

// write sends what waits, and pings where the server is silent.
func (l *link) write() {
	interval := l.session.options.PingInterval / 2
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-l.gone:
			return
		case <-ticker.C:
			if l.raw.silent() < interval {
				continue
			}
			l.session.mu.Lock()
			l.ping(nil)
			l.session.mu.Unlock()
		case <-l.wake:
		}
		if err := l.writeAll(); err != nil {
			// The reader hears of it.
			l.socket.Close()
			return
		}
	}
}

func (l *link) writeAll() error {
	l.session.mu.Lock()
	frames, leaving := l.waiting, l.leaving
	l.waiting = nil
	l.session.mu.Unlock()
	l.raw.cork()
	size := 0
	for _, one := range frames {
		if err := l.writeOne(one); err != nil {
			return err
		}
		size += len(one.data)
	}
	if leaving {
		message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := l.socket.WriteControl(websocket.CloseMessage, message, time.Time{}); err != nil {
			return err
		}
	}
	if err := l.raw.uncork(); err != nil {
		return err
	}
	l.session.written(l, size)
	return nil
}

func (l *link) writeOne(one frame) error {
	if one.kind == websocket.TextMessage {
		return l.socket.WriteMessage(one.kind, one.data)
	}
	return l.socket.WriteControl(one.kind, one.data, time.Time{})
}

// leave lets what waits be sent, and takes leave then.
func (l *link) leave() {
	l.session.mu.Lock()
	l.leaving = true
	l.nudge()
	l.session.mu.Unlock()
	select {
	case <-l.gone:
	case <-time.After(farewell):
		l.socket.Close()
	}
}

// What follows is called under the session's lock.

// send lets a message wait to be sent.
func (l *link) send(message wire.Message) {
	text, err := l.protocol.Send(message)
	if err != nil {
		// Only an answer that nobody waits for: all else may come at any time.
		l.session.log.Debug("tega: not sent", "message", message.Command(), "reason", err)
		return
	}
	switch message := message.(type) {
	case *wire.Publish:
		l.told = max(l.told, len(message.Body))
	case *wire.Response:
		l.told = max(l.told, len(message.Body))
	}
	l.enqueue(frame{websocket.TextMessage, text})
}

// ping lets a ping wait to be sent.
func (l *link) ping(payload []byte) { l.enqueue(frame{websocket.PingMessage, payload}) }

func (l *link) enqueue(one frame) {
	l.waiting = append(l.waiting, one)
	l.backlog += len(one.data)
	l.nudge()
}

func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// readRefusal is what a server answers instead of doing it.
func readRefusal(response *http.Response) *Error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		text = []byte(err.Error())
	}
	var body struct{ Error json.RawMessage }
	if json.Unmarshal(text, &body) != nil || len(body.Error) == 0 || body.Error[0] != '{' {
		made := &Error{Message: fmt.Sprintf("%s: %.200s", response.Status, bytes.TrimSpace(text))}
		switch response.StatusCode {
		case http.StatusUnauthorized:
			made.Code = "unauthorized"
		case http.StatusForbidden:
			made.Code = "forbidden"
		}
		made.Status = response.StatusCode
		return made
	}
	made := told(body.Error)
	made.Status = response.StatusCode
	return made
}
