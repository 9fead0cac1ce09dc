package tega

import (
	"errors"
	"time"
)

// What follows is about the ephemeral nodes of a session, after a reconnect.

// putAgain puts the ephemeral nodes: they may have gone with the connection. Those that are under
// way too: if they were put, they will not be put again, and yet gone.
func (s *session) putAgain(unanswered []*asked) {
	nodes := s.ephemerals.copied()
	for _, one := range unanswered {
		for _, op := range one.operations {
			nodes.apply(op)
		}
	}
	operations := nodes.inOrder()
	if s.apart {
		s.putApart(operations)
	} else if len(operations) > 0 {
		s.put(operations, func(_ []byte, err error) {
			// Where it was too much, they are put apart on the next connection.
			if isRefusal(err) && !s.apart {
				s.putApart(operations)
			}
		})
	}
}

// putApart puts each that can be put, as not all of them can be.
func (s *session) putApart(operations []Op) {
	for _, op := range operations {
		s.put([]Op{op}, func(_ []byte, err error) {
			switch {
			case errors.Is(err, ErrLeaderAway):
				s.putLater(op)
			case isRefusal(err):
				s.log.Error(
					"tega: an ephemeral node could not be put again",
					"path",
					op.Path,
					"reason",
					err,
				)
			}
		})
	}
}

// putLater puts a node once its leader may be back, unless all of them were put again meanwhile.
func (s *session) putLater(op Op) {
	l := s.link
	time.AfterFunc(awhile, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.link == l && l != nil && s.ephemerals.has(op) {
			s.putApart([]Op{op})
		}
	})
}

func (s *session) put(operations []Op, done func([]byte, error)) {
	one, err := s.transaction(s.nextTxID(), operations)
	if err != nil {
		s.log.Error("tega: ephemeral nodes could not be put again", "reason", err)
		return
	}
	one.fleeting, one.done = true, done
	s.requests.add(one)
	s.transmit(one)
}

func isRefusal(err error) bool {
	var refusal *Error
	return errors.As(err, &refusal) && refusal.cause == nil
}
