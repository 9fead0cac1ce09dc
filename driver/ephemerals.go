package tega

import (
	"slices"

	"tega.internal/tega/internal/wire"
)

// ephemerals are the operations that make a session's ephemeral nodes, so that they can be put
// again.
//
// A PUT takes the place of all earlier operations at or below its path; so does a DELETE, which
// itself is kept only where it takes something out of a node put before.
type ephemerals struct {
	all map[string]*kept
	// below counts the operations below a path.
	below map[string]int
	last  int
}

// kept is an operation that is kept.
type kept struct {
	op    Op
	path  wire.Path
	order int
}

func newEphemerals() *ephemerals {
	return &ephemerals{all: map[string]*kept{}, below: map[string]int{}}
}

// copied is one of its own with the same operations.
func (e *ephemerals) copied() *ephemerals {
	made := newEphemerals()
	for _, op := range e.inOrder() {
		made.apply(op)
	}
	return made
}

// inOrder are the operations, oldest first.
func (e *ephemerals) inOrder() []Op {
	sorted := make([]*kept, 0, len(e.all))
	for _, one := range e.all {
		sorted = append(sorted, one)
	}
	slices.SortFunc(sorted, func(a, b *kept) int { return a.order - b.order })
	made := make([]Op, len(sorted))
	for place, one := range sorted {
		made[place] = one.op
	}
	return made
}

// has says whether an operation is still needed.
func (e *ephemerals) has(op Op) bool {
	path, err := wire.ParsePath(op.Path)
	one := e.all[path.String()]
	return err == nil && one != nil && string(one.op.Instance) == string(op.Instance) &&
		one.op.Ope == op.Ope
}

// apply takes note of an operation that was done.
func (e *ephemerals) apply(op Op) {
	if op.Ope == "PUT" && !op.Ephemeral || op.Ope == "DELETE" && len(e.all) == 0 {
		return
	}
	path, err := wire.ParsePath(op.Path)
	if err != nil {
		// It was never sent.
		return
	}
	e.drop(path)
	inside := false
	for depth := 1; depth < len(path); depth++ {
		inside = inside || e.all[path[:depth].String()] != nil
	}
	// What it expected of the version has been met; it will be another one.
	op.Version = nil
	if op.Ope == "PUT" || inside {
		e.add(path, op)
	}
}

func (e *ephemerals) add(path wire.Path, op Op) {
	e.last++
	e.all[path.String()] = &kept{op, path, e.last}
	for depth := 1; depth < len(path); depth++ {
		e.below[path[:depth].String()]++
	}
}

// drop forgets what stands at a path or below.
func (e *ephemerals) drop(path wire.Path) {
	var over []*kept
	if one := e.all[path.String()]; one != nil {
		over = append(over, one)
	}
	if e.below[path.String()] > 0 {
		for _, one := range e.all {
			if len(one.path) > len(path) && path.Has(one.path) {
				over = append(over, one)
			}
		}
	}
	for _, one := range over {
		delete(e.all, one.path.String())
		for depth := 1; depth < len(one.path); depth++ {
			if key := one.path[:depth].String(); e.below[key] > 1 {
				e.below[key]--
			} else {
				delete(e.below, key)
			}
		}
	}
}
