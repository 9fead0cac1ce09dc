package tega

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"tega.internal/tega/internal/wire"
)

// maxOpen is how many requests may be under way: who asks for more waits.
const maxOpen = 1024

// session is a client's session: one connection to a server, made anew whenever it is lost.
//
// What a program asked for outlives a connection. After a reconnect the session puts its ephemeral
// nodes again, subscribes from where it was, and sends again what has no answer yet and may be sent
// twice: reads, and transactions, each of which has an id under which the server does it once at
// most.
type session struct {
	options Options
	at      server
	log     *slog.Logger
	// id begins the ids of its transactions.
	id string
	// life ends with the client.
	life context.Context
	end  context.CancelFunc
	// group are its goroutines, but for those of functions that it serves.
	group sync.WaitGroup
	// room has a place for each request under way.
	room chan struct{}

	mu sync.Mutex
	// changed is closed when what somebody may wait for has changed; nil while nobody waits.
	changed chan struct{}
	// link is the connection; nil while there is none.
	link *link
	// over is why nothing can be asked any more.
	over error
	// done is closed when it is over.
	done          chan struct{}
	transactions  uint64
	requests      requests
	ephemerals    *ephemerals
	apart         bool
	subscriptions *subscriptions
	functions     *functions
}

// begin begins a session.
func begin(ctx context.Context, options Options) (*session, error) {
	s, err := newSession(options)
	if err != nil {
		return nil, err
	}
	l, ack, err := connect(ctx, s)
	if err != nil {
		s.end()
		return nil, plain(err)
	}
	s.opened(l, ack)
	s.group.Add(1)
	go func() {
		defer s.group.Done()
		s.keep(l)
	}()
	return s, nil
}

// newSession is one without any connection.
func newSession(options Options) (*session, error) {
	options, at, err := options.settled()
	if err != nil {
		return nil, err
	}
	s := &session{
		options: options, at: at, id: newID(), room: make(chan struct{}, maxOpen),
		log:        options.Logger.With("server", at.address, "tega_id", options.TegaID),
		done:       make(chan struct{}),
		requests:   requests{all: map[uint64]*asked{}},
		ephemerals: newEphemerals(),
	}
	if options.Token != "" && !at.secure && !at.isLocal() {
		s.log.Warn("tega: the token goes without TLS: whoever is on the way can read it")
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.subscriptions = newSubscriptions(s)
	s.functions = newFunctions(s)
	return s, nil
}

// plain is an error without the mark that it is final.
func plain(err error) error {
	var last final
	if errors.As(err, &last) {
		return last.error
	}
	return err
}

func (s *session) tls() *tls.Config {
	if s.options.TLS == nil {
		return nil
	}
	return s.options.TLS.Clone()
}

func (s *session) header() http.Header {
	header := http.Header{}
	if s.options.Token != "" {
		header.Set("Authorization", "Bearer "+s.options.Token)
	}
	return header
}

// -- connections ----------------------------------------------------------------------------------

// keep has a connection, over and over.
func (s *session) keep(l *link) {
	pause := pause{first: s.options.firstPause}
	for l != nil {
		begun := time.Now()
		err := l.run(s.life)
		s.lost(l, err)
		if s.life.Err() != nil {
			return
		}
		if last := (final{}); errors.As(err, &last) {
			s.finish(last.error)
			return
		}
		if time.Since(begun) > good {
			pause.reset()
		}
		l = s.reconnect(&pause)
	}
}

// reconnect tries until there is a connection; nil where the session is over.
func (s *session) reconnect(pause *pause) *link {
	shown := ""
	for pause.wait(s.life) {
		l, ack, err := connect(s.life, s)
		if err == nil {
			s.log.Info("tega: connected again", "life", ack.Life, "seq", ack.Seq)
			s.opened(l, ack)
			return l
		}
		if s.life.Err() != nil {
			return nil
		}
		if last := (final{}); errors.As(err, &last) {
			s.finish(last.error)
			return nil
		}
		if text := err.Error(); text != shown {
			shown = text
			s.log.Warn("tega: trying again", "reason", err)
		}
	}
	return nil
}

// opened takes up where the last connection ended.
func (s *session) opened(l *link, ack *wire.SessionAck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests.reborn(ack.Life, s.at.address)
	s.subscriptions.opened(ack.Life, ack.Seq)
	unanswered := s.requests.inOrder()
	s.link = l
	s.putAgain(unanswered)
	s.subscriptions.start()
	for _, one := range unanswered {
		s.transmit(one)
	}
	s.broadcast()
}

// lost is called when a connection is over.
func (s *session) lost(l *link, err error) {
	if s.life.Err() == nil {
		s.log.Warn("tega: the connection was lost", "reason", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = nil
	s.subscriptions.lost()
	largest := s.requests.largest()
	if largest != nil && len(largest.message.Body) > l.told && isTooBig(err) {
		// What was too large for the server would be so again.
		s.apart = s.apart || largest.fleeting
		s.requests.fail(largest, refusal("too_large", "a request of %d bytes is more than %s takes",
			len(largest.message.Body), s.at.address))
	}
	s.requests.lost(s.at.address)
	s.broadcast()
}

func isTooBig(err error) bool { return websocket.IsCloseError(err, websocket.CloseMessageTooBig) }

// finish ends the session for good.
func (s *session) finish(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return
	}
	if why != ErrClientClosed {
		s.log.Error("tega: the session is over", "reason", why)
	}
	s.over = why
	s.requests.end(why)
	s.subscriptions.end(why)
	close(s.done)
	s.broadcast()
}

// close ends everything, and waits for it.
func (s *session) close() error {
	s.finish(ErrClientClosed)
	s.end()
	s.group.Wait()
	return s.functions.wait()
}

// -- waiting --------------------------------------------------------------------------------------

// broadcast tells everybody who waits that something has changed.
func (s *session) broadcast() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// await waits under the lock until something is ready, which lets go of the lock meanwhile.
func (s *session) await(ctx context.Context, ready func() bool) error {
	for !ready() {
		if s.over != nil {
			return s.over
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return canceled(ctx, "waiting for "+s.at.address)
		}
	}
	return s.over
}

// idle says that the network has not much to take.
func (s *session) idle() bool { return s.link == nil || s.link.backlog < maxBacklog }

// written is told that so much went out.
func (s *session) written(l *link, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := l.backlog
	l.backlog -= size
	if was >= maxBacklog && l.backlog < maxBacklog {
		s.broadcast()
	}
}

// -- asking ---------------------------------------------------------------------------------------

// answer is what becomes of a request.
type answer struct {
	body []byte
	err  error
}

// ask sends a request and waits for its answer, for as long as the context lasts.
func (s *session) ask(ctx context.Context, one *asked) ([]byte, error) {
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	case <-ctx.Done():
		return nil, canceled(ctx, "waiting for "+s.at.address)
	case <-s.done:
		return nil, s.why()
	}
	got := make(chan answer, 1)
	one.done = func(body []byte, err error) { got <- answer{body, err} }
	s.mu.Lock()
	err := s.await(ctx, s.idle)
	if err == nil && ctx.Err() != nil {
		err = canceled(ctx, "not sent")
	}
	if err == nil {
		s.requests.add(one)
		s.transmit(one)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case found := <-got:
		return found.body, found.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case found := <-got:
		return found.body, found.err
	default:
	}
	// What it does to ephemeral nodes is to be known, should an answer come.
	one.done, one.abandoned = func([]byte, error) {}, true
	if !one.sent {
		delete(s.requests.all, one.message.SeqNo)
	}
	return nil, one.lostBy(canceled(ctx, "no answer from "+s.at.address))
}

func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// transmit sends a request, if there is a connection.
func (s *session) transmit(one *asked) {
	if s.link == nil || s.requests.all[one.message.SeqNo] != one {
		return
	}
	if !one.sent {
		one.sent, one.life = true, s.subscriptions.life
	}
	s.link.send(one.message)
}

// transaction makes a request of operations.
func (s *session) transaction(txid string, operations []Op) (*asked, error) {
	if operations == nil {
		operations = []Op{}
	}
	body, err := marshal(map[string]any{"ops": operations, "txid": txid})
	if err != nil {
		return nil, fmt.Errorf("tega: %w", err)
	}
	made := &asked{txid: txid, message: &wire.Request{
		Type: "TX", TegaID: s.options.TegaID, Path: "-", Body: body,
	}}
	for _, op := range operations {
		made.changes = made.changes || op.Ope != "GET"
		if op.Ephemeral || op.Ope == "DELETE" {
			made.operations = append(made.operations, op)
		}
	}
	return made, nil
}

// newTxID is the id of a transaction that has none of its user's.
func (s *session) newTxID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextTxID()
}

func (s *session) nextTxID() string {
	s.transactions++
	return s.id + "-" + strconv.FormatUint(s.transactions, 10)
}

// transact has operations carried out as one transaction.
func (s *session) transact(ctx context.Context, txid string, operations []Op) ([]byte, error) {
	for number, op := range operations {
		if op.err != nil {
			if len(operations) > 1 {
				return nil, fmt.Errorf("operation %d: %w", number, op.err)
			}
			return nil, op.err
		}
	}
	one, err := s.transaction(txid, operations)
	if err != nil {
		return nil, err
	}
	return s.ask(ctx, one)
}

// -- what comes -----------------------------------------------------------------------------------

// received takes a message of the connection. An error ends it.
func (s *session) received(l *link, text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	message, err := l.protocol.Receive(text)
	if err != nil {
		return fmt.Errorf("what came is not understood: %w", err)
	}
	switch message := message.(type) {
	case *wire.Response:
		s.answered(message)
	case *wire.Notify:
		return s.subscriptions.notify(message)
	case *wire.Published:
		return s.subscriptions.message(message)
	case *wire.Request:
		s.functions.asked(l, message)
	case *wire.Told:
		return s.told(message)
	}
	return nil
}

func (s *session) answered(message *wire.Response) {
	one := s.requests.all[message.SeqNo]
	if one == nil {
		return
	}
	delete(s.requests.all, message.SeqNo)
	if message.IsError {
		made := told(message.Body)
		made.TxID = one.txid
		one.done(nil, made)
		return
	}
	for _, op := range one.operations {
		s.ephemerals.apply(op)
	}
	one.done(message.Body, nil)
}

// told takes what is no answer to a request.
func (s *session) told(message *wire.Told) error {
	why := told(message.Body)
	why.Code, why.Status = message.Code, codes[message.Code].status
	switch message.Code {
	case "gone":
		return s.subscriptions.gone(message.Body)
	case "taken_over":
		return final{why}
	case "behind":
		s.log.Info("tega: behind", "reason", why.Message)
		return nil
	}
	if !s.subscriptions.refused(why) {
		s.log.Warn("tega: the server refuses something", "reason", why)
	}
	return nil
}

// ponged is told that the server has taken all that was sent before a ping.
func (s *session) ponged(l *link, payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number, err := strconv.ParseUint(payload, 10, 64); err == nil && s.link == l {
		s.subscriptions.ponged(number)
	}
}
