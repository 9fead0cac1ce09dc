package tega

import (
	"slices"
	"strconv"

	"tega.internal/tega/internal/wire"
)

// subscriptions are all subscriptions of a session: who listens to what, and from where to go on.
// All is called under the session's lock.
//
// Where to go on is kept twice. For each listener of a subscription: the sequence number up to
// which it has been given what there was, so that nothing comes to it twice. For each subscription:
// the number up to which the connection has brought what there was, so that after a reconnect
// nothing is lost.
//
// A server that is asked to go on from before goes back, for that subscription, and from there on
// sends everything in order again. What it has sent just before that comes once more, in its place;
// so it must not be taken for what comes after. A ping before the SUBSCRIBE and one behind it are a
// fence: pongs come in order with messages.
type subscriptions struct {
	session *session
	// life is that of the server's database; empty: not known yet.
	life string
	// newest is the newest sequence number that has been heard of.
	newest int64
	// notified is that of the last NOTIFY since the server went back: all before has come.
	notified int64
	open     bool
	// fences are where the server is still to go back, in the order in which it was asked.
	fences []fence
	pings  uint64
	// all has the subscriptions by key, order their keys by age.
	all   map[string]*subscription
	order []string
	// resyncing says that the next NOTIFY tells how a subscription stands.
	resyncing *resync
}

// fence is where the server goes back for subscriptions, between two pongs.
type fence struct {
	these       []*subscription
	first, last uint64
	// strict says to ask again for one for which something comes between the two; otherwise the
	// first pong alone counts.
	strict bool
}

// resync is how a subscription, if it is still there, stands as of a number.
type resync struct {
	one *subscription
	seq int64
}

func newSubscriptions(s *session) *subscriptions {
	return &subscriptions{session: s, newest: -1, notified: -1, all: map[string]*subscription{}}
}

func (s *subscriptions) inOrder() []*subscription {
	made := make([]*subscription, len(s.order))
	for place, key := range s.order {
		made[place] = s.all[key]
	}
	return made
}

// find is the subscription on a path or pattern; nil where there is none.
func (s *subscriptions) find(text string, regex bool) *subscription {
	if !regex {
		path, err := wire.ParsePath(text)
		if err != nil {
			return nil
		}
		text = path.String()
	}
	return s.all[keyOf(text, regex)]
}

// -- who listens to what --------------------------------------------------------------------------

// add lets somebody listen.
func (s *subscriptions) add(who *listener, made *subscription, since *wire.Since) {
	one := s.all[made.key()]
	isNew := one == nil
	if isNew {
		one = made
		s.all[one.key()] = one
		s.order = append(s.order, one.key())
	}
	heard := since
	if heard == nil && !isNew {
		// The server does not tell of what came before a SUBSCRIBE; but this may be an older one.
		heard = s.now()
	}
	one.heard[who] = heard
	widened := made.scope == Global && one.scope != Global
	if widened {
		one.scope = Global
	}
	switch {
	case since != nil:
		s.goBack(one, since)
	case s.open && isNew:
		s.startThese([]*subscription{one})
	case s.open && widened:
		s.send(one.message())
	}
}

// remove lets somebody listen no more.
func (s *subscriptions) remove(who *listener) {
	for _, one := range s.inOrder() {
		if _, listens := one.heard[who]; !listens {
			continue
		}
		delete(one.heard, who)
		if len(one.heard) > 0 {
			continue
		}
		delete(s.all, one.key())
		s.order = slices.DeleteFunc(s.order, func(key string) bool { return key == one.key() })
		if s.open {
			s.send(&wire.Unsubscribe{Path: one.text, Regex: one.regex})
		}
	}
}

// goOn gives a listener that was behind what it has missed.
func (s *subscriptions) goOn(who *listener) {
	for _, one := range s.inOrder() {
		if since := one.heard[who]; since != nil {
			s.goBack(one, since)
		}
	}
}

// -- the connection -------------------------------------------------------------------------------

func (s *subscriptions) send(message wire.Message) {
	if s.session.link != nil {
		s.session.link.send(message)
	}
}

// opened is told that there is a connection.
func (s *subscriptions) opened(life string, newest int64) {
	s.life, s.newest, s.notified = life, newest, -1
}

// start subscribes to everything.
func (s *subscriptions) start() {
	s.open = true
	s.startThese(s.inOrder())
}

// lost is told that there is no connection any more.
func (s *subscriptions) lost() {
	if !s.open {
		return
	}
	s.leaveOff()
	s.open, s.resyncing, s.fences = false, nil, nil
	for _, one := range s.all {
		one.awaits = 0
	}
}

// leaveOff writes down from where each is to go on.
func (s *subscriptions) leaveOff() {
	for _, one := range s.all {
		if one.seen >= 0 {
			one.since = &wire.Since{Seq: s.comeTo(one), Life: s.life}
			one.seen = -1
		}
	}
}

// comeTo is up to where this connection has brought what there was of a subscription.
func (s *subscriptions) comeTo(one *subscription) int64 {
	if one.awaits > 0 {
		return one.seen
	}
	return max(one.seen, s.notified)
}

// keepPlaces is for when the server goes back for some: what it sends from now on says nothing of
// the others.
func (s *subscriptions) keepPlaces() {
	for _, one := range s.all {
		if one.seen >= 0 {
			one.seen = s.comeTo(one)
		}
	}
	s.notified = -1
}

func (s *subscriptions) startThese(these []*subscription) {
	var back []*subscription
	for _, one := range these {
		if one.since != nil {
			back = append(back, one)
			continue
		}
		s.send(one.message())
		one.seen = s.newest
	}
	if len(back) > 0 {
		s.fence(back, true)
	}
}

// fence sends SUBSCRIBEs for which the server goes back.
func (s *subscriptions) fence(these []*subscription, strict bool) {
	made := fence{these: these, strict: strict, first: s.ping()}
	made.last = made.first
	for _, one := range these {
		s.send(one.message())
		one.awaits++
		one.dirty = false
		one.seen = -1
		if one.since != nil && (one.since.Life == "" || one.since.Life == s.life) {
			one.seen = one.since.Seq
			one.since = nil
		}
	}
	if strict {
		made.last = s.ping()
	}
	s.fences = append(s.fences, made)
}

func (s *subscriptions) ping() uint64 {
	s.pings++
	if s.session.link != nil {
		s.session.link.ping(strconv.AppendUint(nil, s.pings, 10))
	}
	return s.pings
}

// ponged is told that the server has taken all that was sent before a ping.
func (s *subscriptions) ponged(number uint64) {
	for len(s.fences) > 0 && s.fences[0].last <= number {
		passed := s.fences[0]
		s.fences = s.fences[1:]
		s.passed(passed)
	}
	if len(s.fences) > 0 && s.fences[0].first <= number {
		for _, one := range s.fences[0].these {
			// What has come for it until now will come again.
			one.dirty = false
		}
	}
}

// passed is where, from here on, all comes in order from where it was asked for.
func (s *subscriptions) passed(over fence) {
	s.keepPlaces()
	for _, one := range over.these {
		if one.awaits == 0 {
			continue
		}
		one.awaits--
		if over.strict && one.dirty && one.awaits == 0 {
			// The SUBSCRIBE and the pings did not arrive together, and what came in between may be
			// either. On its own it is so short that it does not get torn apart.
			one.since = &wire.Since{Seq: one.seen, Life: s.life}
			s.fence([]*subscription{one}, false)
		}
	}
}

// goBack subscribes anew, from before.
func (s *subscriptions) goBack(one *subscription, since *wire.Since) {
	come := one.since
	if one.seen >= 0 {
		come = &wire.Since{Seq: s.comeTo(one), Life: s.life}
	}
	if come != nil && come.Seq < since.Seq &&
		(come.Life == since.Life || come.Life == "" || since.Life == "") {
		// Others listen, who must not miss what is between.
		since = come
	}
	one.since = since
	if s.open {
		s.startThese([]*subscription{one})
	}
}

func (s *subscriptions) now() *wire.Since {
	if s.life == "" {
		return nil
	}
	return &wire.Since{Seq: s.newest, Life: s.life}
}
