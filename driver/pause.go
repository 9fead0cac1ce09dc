package tega

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// firstPause is before the second try, longestPause before any further one at most.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// good is how long a connection lasts that was a good one: the next is tried at once.
	good = 5 * time.Second
	// awhile is until a node whose leader is away is put once more.
	awhile = time.Second
)

// pause is how long to wait before each try: first nothing, then twice as long each time, and not
// all clients at the same time.
type pause struct{ first, next time.Duration }

func (p *pause) reset() { p.next = 0 }

// wait waits; false where the context has ended.
func (p *pause) wait(ctx context.Context) bool {
	timer := time.NewTimer(time.Duration(float64(p.next) * (0.5 + rand.Float64()/2)))
	defer timer.Stop()
	p.next = min(max(2*p.next, p.first), longestPause)
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
