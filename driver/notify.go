package tega

import (
	"encoding/json"
	"fmt"

	"tega.internal/tega/internal/wire"
)

// What follows is what subscriptions do with what comes, under the session's lock.

// noted is a change as it came, with its path read.
type noted struct {
	Change
	Seq  int64 `json:"seq"`
	path wire.Path
}

// notify hands out the changes of a transaction.
func (s *subscriptions) notify(message *wire.Notify) error {
	var notes []noted
	if err := json.Unmarshal(message.Body, &notes); err != nil {
		return fmt.Errorf("NOTIFY: %w", err)
	}
	for place := range notes {
		path, err := wire.ParsePath(notes[place].Path)
		if err != nil {
			return fmt.Errorf("NOTIFY: %w", err)
		}
		notes[place].path, notes[place].Path = path, path.String()
	}
	if resyncing := s.resyncing; resyncing != nil {
		s.resyncing = nil
		s.resync(resyncing, notes)
	} else if len(notes) > 0 {
		seq := notes[0].Seq
		s.notified = max(s.notified, seq)
		s.newest = max(s.newest, seq)
		s.handOut(seq, notes)
	}
	return nil
}

func (s *subscriptions) handOut(seq int64, notes []noted) {
	since := wire.Since{Seq: seq, Life: s.life}
	mine := map[*listener][]noted{}
	var heard []*subscription
	for _, note := range notes {
		var found []*subscription
		for _, one := range s.covering(note) {
			if one.awaits > 0 {
				one.dirty = true
			} else {
				found = append(found, one)
			}
		}
		heard = append(heard, found...)
		// A listener that has heard it by one subscription does not hear it by another; but each of
		// them has one alone.
		for _, one := range found {
			for who, upTo := range one.heard {
				if !hasHeard(upTo, since) && !who.behind {
					mine[who] = append(mine[who], note)
				}
			}
		}
	}
	for who, changes := range mine {
		if who.full() {
			s.fallBehind(who, seq)
		} else {
			who.notice(s.notification(seq, s.withoutEchoes(who, changes), false))
		}
	}
	for _, one := range heard {
		for who, upTo := range one.heard {
			if !who.behind && !hasHeard(upTo, since) {
				one.heard[who] = &since
			}
		}
	}
}

func (s *subscriptions) notification(seq int64, notes []noted, isResync bool) Notification {
	made := Notification{
		Seq:    seq,
		Resync: isResync,
		Place:  wire.Since{Seq: seq, Life: s.life}.String(),
	}
	for _, note := range notes {
		made.Changes = append(made.Changes, note.Change)
	}
	return made
}

// covering are the subscriptions that a change belongs to.
func (s *subscriptions) covering(note noted) []*subscription {
	var found []*subscription
	for _, key := range s.order {
		one := s.all[key]
		if note.Ope == OpeRollback && one.coversRoot(note.path[0]) ||
			note.Ope != OpeRollback && one.covers(note.path) {
			found = append(found, one)
		}
	}
	return found
}

func (s *subscriptions) fallBehind(who *listener, seq int64) {
	who.behind = true
	before := wire.Since{Seq: seq - 1, Life: s.life}
	for _, one := range s.all {
		if upTo, listens := one.heard[who]; listens && one.awaits == 0 && !hasHeard(upTo, before) {
			one.heard[who] = &before
		}
	}
}

// withoutEchoes leaves out what tells again, of a part, what the change before has told of the
// whole.
//
// Where one subscription stands below another, the server tells each what it covers. Who listens to
// both gets both; but who listens to the upper one alone is not concerned.
func (s *subscriptions) withoutEchoes(who *listener, changes []noted) []noted {
	var kept []noted
	for _, note := range changes {
		if len(kept) == 0 || !s.isCut(who, note) || !note.echoes(kept[len(kept)-1]) {
			kept = append(kept, note)
		}
	}
	return kept
}

// isCut says whether a change may be the part of another one that somebody else has asked for.
func (s *subscriptions) isCut(who *listener, note noted) bool {
	for _, one := range s.covering(note) {
		if _, listens := one.heard[who]; len(one.levels) == len(note.path) && !listens {
			return true
		}
	}
	return false
}

// resync tells how a subscription stands.
func (s *subscriptions) resync(this *resync, notes []noted) {
	one := this.one
	if one == nil {
		return
	}
	one.since, one.seen = nil, this.seq
	for who := range one.heard {
		if !who.behind {
			one.heard[who] = &wire.Since{Seq: this.seq, Life: s.life}
			who.notice(s.notification(this.seq, notes, true))
		}
	}
}

// gone is told that what has changed since is no longer known; how it stands follows.
func (s *subscriptions) gone(body []byte) error {
	var told struct {
		Path      string  `json:"path"`
		RegexFlag bool    `json:"regex_flag"`
		Seq       *int64  `json:"seq"`
		Life      *string `json:"life"`
	}
	if err := json.Unmarshal(body, &told); err != nil || told.Path == "" || told.Seq == nil {
		return fmt.Errorf("ERROR gone: the body has path and seq, not %.200s", body)
	}
	if told.Life != nil && *told.Life != s.life {
		s.leaveOff()
		s.life, s.notified = *told.Life, -1
	}
	s.newest = *told.Seq
	one := s.find(told.Path, told.RegexFlag)
	s.resyncing = &resync{one, *told.Seq}
	if one != nil {
		if one.seen >= 0 {
			// Were the connection lost before it is told how all stands: go on from here.
			one.since = &wire.Since{Seq: s.comeTo(one), Life: s.life}
			one.seen = -1
		}
		one.awaits = 0
	}
	return nil
}

// message hands out a message of a channel.
func (s *subscriptions) message(message *wire.Published) error {
	path, err := wire.ParsePath(message.Channel)
	if err != nil {
		return fmt.Errorf("MESSAGE: %w", err)
	}
	var body struct{ Message json.RawMessage }
	if err := json.Unmarshal(message.Body, &body); err != nil {
		return fmt.Errorf("MESSAGE: %w", err)
	}
	for _, one := range s.all {
		if len(one.levels) == len(path) && one.covers(path) {
			for who := range one.heard {
				who.message(
					Message{Channel: path.String(), TegaID: message.TegaID, Body: body.Message},
				)
			}
		}
	}
	return nil
}

// refused ends those who listen to what the server refuses; false where it refuses something else.
func (s *subscriptions) refused(why *Error) bool {
	var regex bool
	if why.Path == "" || json.Unmarshal(why.Details["regex_flag"], &regex) != nil {
		return false
	}
	one := s.find(why.Path, regex)
	if one == nil {
		return false
	}
	for who := range one.heard {
		who.finish(why)
		s.remove(who)
	}
	return true
}

// heardOf is told of a sequence number of a commit.
func (s *subscriptions) heardOf(seq int64) { s.newest = max(s.newest, seq) }

// end ends all who listen.
func (s *subscriptions) end(why error) {
	for _, one := range s.all {
		for who := range one.heard {
			who.finish(why)
		}
	}
}

func hasHeard(upTo *wire.Since, since wire.Since) bool {
	return upTo != nil && (upTo.Life == "" || upTo.Life == since.Life) && upTo.Seq >= since.Seq
}
