package tega

import (
	"fmt"
	"slices"

	"tega.internal/tega/internal/wire"
)

// asked is a request that has no answer yet.
type asked struct {
	message *wire.Request
	// done is called with the answer, or with why there is none: once, under the session's lock.
	done func(body []byte, err error)
	// txid is that of a transaction.
	txid string
	// changes says that it may change something.
	changes bool
	// once says that it must not be sent twice.
	once bool
	// fleeting says that it is of no use on another connection.
	fleeting bool
	// abandoned says that nobody waits any more.
	abandoned bool
	// operations are those that concern ephemeral nodes.
	operations []Op
	// sent says that it may have reached the server, whose database had this life then.
	sent bool
	life string
}

// lostBy is the error of a request that will not be answered.
func (a *asked) lostBy(cause error) error {
	if a.sent && a.changes {
		return unknown(a.txid, cause)
	}
	return cause
}

// requests are all requests under way.
type requests struct {
	all  map[uint64]*asked
	last uint64
}

func (r *requests) add(one *asked) {
	r.last++
	one.message.SeqNo = r.last
	r.all[r.last] = one
}

// inOrder are the requests, oldest first.
func (r *requests) inOrder() []*asked {
	made := make([]*asked, 0, len(r.all))
	for _, one := range r.all {
		made = append(made, one)
	}
	slices.SortFunc(made, func(a, b *asked) int {
		return int(int64(a.message.SeqNo) - int64(b.message.SeqNo))
	})
	return made
}

func (r *requests) fail(one *asked, err error) {
	delete(r.all, one.message.SeqNo)
	one.done(nil, err)
}

// largest is the largest request that was sent; nil where there is none.
func (r *requests) largest() *asked {
	var found *asked
	for _, one := range r.all {
		if one.sent && (found == nil || len(one.message.Body) > len(found.message.Body)) {
			found = one
		}
	}
	return found
}

// lost gives up what cannot be sent again after a connection was lost.
func (r *requests) lost(where string) {
	for _, one := range r.inOrder() {
		if one.sent && (one.once || one.fleeting || one.abandoned) {
			r.fail(one, one.lostBy(fmt.Errorf("the connection to %s was lost", where)))
		}
	}
}

// reborn gives up changes that were sent to a database that has been cleared since: they may have
// been done there, and would be done again.
func (r *requests) reborn(life, where string) {
	for _, one := range r.inOrder() {
		if one.changes && one.sent && one.life != life {
			r.fail(one, one.lostBy(fmt.Errorf("the database at %s was cleared meanwhile", where)))
		}
	}
}

// end gives all of them up.
func (r *requests) end(err error) {
	for _, one := range r.inOrder() {
		r.fail(one, one.lostBy(err))
	}
}
