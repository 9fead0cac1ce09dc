package tega

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
)

// overhead is what an item that waits costs beside its text, in bytes, roughly.
const overhead = 200

// listener has what waits for somebody to read it: notifications, or messages. All but pump is
// called under the session's lock.
//
// What waits is bounded. A listener that lets more come falls behind: of changes it is given no
// more, and once it has read what waits it goes on from there out of the server's history, as after
// a lost connection. Messages have no history: those that come meanwhile are lost, and counted. So
// a slow listener costs a bounded amount of memory, and holds up neither the others nor answers.
type listener struct {
	session *session
	text    string
	changes bool
	waiting []waiting
	size    int
	behind  bool
	ended   bool
	err     error
	lost    uint64
	// wake is told that there is something to do for the pump.
	wake chan struct{}
}

// waiting is something that waits, and its size in bytes.
type waiting struct {
	item any
	size int
}

func (l *listener) full() bool { return l.size >= l.session.options.Buffer }

func (l *listener) notice(made Notification) {
	if !l.changes {
		return
	}
	size := overhead
	for _, change := range made.Changes {
		size += overhead + len(change.Instance)
	}
	l.add(made, size)
}

func (l *listener) message(made Message) {
	switch {
	case l.changes:
	case l.full():
		if l.lost == 0 {
			l.session.log.Warn("tega: a reader is too slow: messages get lost", "channel", l.text)
		}
		l.lost++
	default:
		l.add(made, overhead+len(made.Body))
	}
}

func (l *listener) add(item any, size int) {
	if l.ended {
		return
	}
	l.waiting = append(l.waiting, waiting{item, size})
	l.size += size
	l.nudge()
}

// finish says that nothing more comes: what waits can still be read.
func (l *listener) finish(err error) {
	if !l.ended {
		l.ended, l.err = true, err
		l.nudge()
	}
}

func (l *listener) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next takes what comes next; over says that nothing will.
func (l *listener) next() (item any, there, over bool) {
	if len(l.waiting) == 0 {
		return nil, false, l.ended
	}
	first := l.waiting[0]
	l.waiting[0] = waiting{}
	l.waiting = l.waiting[1:]
	l.size -= first.size
	if l.behind && len(l.waiting) == 0 {
		l.behind = false
		l.session.subscriptions.goOn(l)
	}
	return first.item, true, false
}

// pump passes on what comes, until the context or the session ends.
func pump[T any](ctx context.Context, l *listener, to chan<- T) {
	defer close(to)
	s := l.session
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.finish(context.Cause(ctx))
		s.subscriptions.remove(l)
	}
	for {
		s.mu.Lock()
		item, there, over := l.next()
		s.mu.Unlock()
		if over {
			return
		}
		if !there {
			select {
			case <-l.wake:
			case <-ctx.Done():
				leave()
				return
			}
			continue
		}
		// Every listener is given what its pump passes on.
		passed, _ := item.(T)
		select {
		case to <- passed:
		case <-ctx.Done():
			leave()
			return
		case <-s.life.Done():
			return
		}
	}
}

// echoes says whether a change is what another one, above, does to a part.
func (n noted) echoes(upper noted) bool {
	if len(upper.path) >= len(n.path) || !upper.path.Has(n.path) || upper.Ope == OpeRollback {
		return false
	}
	part, there := inside(upper.Instance, n.path[len(upper.path):])
	if n.Ope != upper.Ope {
		return n.Ope == OpeDelete && !there
	}
	own, isThere := inside(n.Instance, nil)
	return there && isThere && reflect.DeepEqual(part, own)
}

// inside is the value at a path inside an instance.
func inside(instance json.RawMessage, path []string) (value any, there bool) {
	decoder := json.NewDecoder(bytes.NewReader(instance))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil {
		return nil, false
	}
	for _, key := range path {
		object, _ := value.(map[string]any)
		if value, there = object[key]; !there {
			return nil, false
		}
	}
	return value, true
}
