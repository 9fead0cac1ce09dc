package tega_test

import (
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tega.internal/tega"
)

// TestRestartsUnderLoad has many write while the server ends, in order or not. Each change expects
// the version that the one before has made: one that was lost, or done twice, would be refused.
func TestRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	ctx := short(t)
	hears := dial(t, tega.Hasty(tega.Options{Address: server.address, Logger: silent}))
	heard, err := hears.Subscribe(ctx, "all")
	if err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	var group sync.WaitGroup
	var made [6]atomic.Int64
	for who := range made {
		client := dial(t, tega.Hasty(tega.Options{
			Address: server.address, Logger: silent, TegaID: name("writer-", who),
		}))
		group.Add(1)
		go func() {
			defer group.Done()
			root, last := name("own-", who), int64(-1)
			for !over.Load() {
				done, err := client.Tx(ctx,
					tega.Put(root+".count", last+1, tega.IfVersion(last)),
					tega.Put(name("all.w", who), last+1),
				)
				if err != nil || done.Versions[root] != last+1 {
					t.Errorf("%s: %+v after version %d, %v", root, done, last, err)
					return
				}
				last++
				made[who].Store(last)
			}
		}()
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		before := made[0].Load()
		until(t, "they write", func() bool { return made[0].Load() > before+10 })
		server.end(signal)
		server.start(server.port())
	}
	over.Store(true)
	group.Wait()
	// Whether it was told of changes, or how all stands: in the end it knows.
	know := map[string]int64{}
	for number := range made {
		for know[name("w", number)] != made[number].Load() {
			for _, change := range next(t, heard.C).Changes {
				_, key, isOne := strings.Cut(change.Path, ".")
				var into any = &know
				var count int64
				if isOne {
					into = &count
				}
				if err := change.Into(into); err != nil {
					t.Fatal(err)
				}
				if isOne {
					know[key] = count
				}
			}
		}
	}
}

// TestALargeDocument is more than may wait for a reader, and more than the network takes at once.
func TestALargeDocument(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--max-body", "20000000")
	hears := dial(t, tega.Options{Address: server.address, Buffer: 1000})
	makes := dial(t, tega.Options{Address: server.address})
	ctx := short(t)
	heard, err := hears.Subscribe(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	var large []string
	for number := range 5000 {
		large = append(large, name(strings.Repeat("x", 1000), number))
	}
	for number, value := range []any{large, 1, 2} {
		if _, err := makes.Put(ctx, name("r.k", number), value); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	if err := next(t, heard.C).Changes[0].Into(&got); err != nil || !reflect.DeepEqual(got, large) {
		t.Errorf("%d texts, %v", len(got), err)
	}
	if rest := numbers(heard.C, 2); !reflect.DeepEqual(rest, []int{1, 2}) {
		t.Errorf("then %v", rest)
	}
	got = nil
	if _, err := hears.Get(ctx, "r.k0", &got); err != nil || !reflect.DeepEqual(got, large) {
		t.Errorf("%d texts, %v", len(got), err)
	}
}

// TestASlowReader lets much more come than may wait: nothing is lost, nothing comes twice, and
// nothing else is held up.
func TestASlowReader(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--resume", "20000")
	slow := dial(t, tega.Options{Address: server.address, TegaID: "slow", Buffer: 20_000})
	makes := dial(t, tega.Options{Address: server.address, TegaID: "makes"})
	ctx := short(t)
	const count = 2000
	all, err := slow.Subscribe(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	// One that overlaps, and is read at once.
	part, err := slow.SubscribeRegex(ctx, `r\.even`)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := slow.Messages(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	evens := make(chan []int, 1)
	go func() { evens <- numbers(part.C, count/2) }()
	for number := range count {
		path := "r.even"
		if number%2 == 1 {
			path = "r.odd"
		}
		if _, err := makes.Put(ctx, path, number); err != nil {
			t.Fatal(err)
		}
		if err := makes.Publish(ctx, "r", number); err != nil {
			t.Fatal(err)
		}
	}
	if got := next(t, evens); len(got) != count/2 || got[0] != 0 || got[count/2-1] != count-2 {
		t.Errorf("%d, from %d to %d", len(got), got[0], got[len(got)-1])
	}
	if _, err := slow.Put(ctx, "s", 1); err != nil {
		t.Error(err)
	}
	want := make([]int, count)
	for number := range want {
		want[number] = number
	}
	if got := numbers(all.C, count); !reflect.DeepEqual(got, want) {
		t.Errorf("%d notifications, which are not all in order: %v", len(got), got)
	}
	until(t, "messages are lost", func() bool { return messages.Lost() > 0 })
}

// TestWhoHasMissedTooMuch is told how all stands: a reader that is slow, and one that was away.
// Then both go on.
func TestWhoHasMissedTooMuch(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--resume", "20")
	var apart atomic.Bool
	link := startForwarder(t, server.address, func(int) (int, int) {
		if apart.Load() {
			return 0, 0
		}
		return -1, -1
	})
	slow := dial(t, tega.Options{Address: server.address, Buffer: 3000})
	away := dial(t, tega.Hasty(tega.Options{Address: link.address(), Logger: silent}))
	makes := dial(t, tega.Options{Address: server.address})
	ctx := short(t)
	var readers []*tega.Subscription
	for _, client := range []*tega.Client{slow, away} {
		reader, err := client.Subscribe(ctx, "r")
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, reader)
	}
	apart.Store(true)
	link.cut()
	const count = 200
	for number := range count {
		if _, err := makes.Put(ctx, "r", number); err != nil {
			t.Fatal(err)
		}
	}
	apart.Store(false)
	for which, reader := range readers {
		last, resyncs := -1, 0
		for last != count-1 {
			told := next(t, reader.C)
			var value int
			if err := told.Changes[0].Into(&value); err != nil {
				t.Fatal(err)
			}
			if told.Resync {
				resyncs++
			} else if value != last+1 {
				t.Errorf("reader %d: %d after %d", which, value, last)
			}
			last = value
		}
		if resyncs != 1 {
			t.Errorf("reader %d: %d times", which, resyncs)
		}
	}
	if _, err := makes.Put(ctx, "r", count); err != nil {
		t.Fatal(err)
	}
	for _, reader := range readers {
		told := next(t, reader.C)
		if told.Resync || string(told.Changes[0].Instance) != "200" {
			t.Errorf("%+v", told)
		}
	}
}

// numbers are those that so many notifications put.
func numbers(from <-chan tega.Notification, count int) []int {
	var got []int
	limit := time.After(30 * time.Second)
	for len(got) < count {
		select {
		case told := <-from:
			for _, change := range told.Changes {
				value := -1
				if told.Resync || change.Into(&value) != nil {
					return append(got, -1)
				}
				got = append(got, value)
			}
		case <-limit:
			return got
		}
	}
	return got
}
