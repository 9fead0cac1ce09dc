package tega_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tega.internal/tega"
)

// strideOfCuts is how many bytes lie between the places where links are cut: TEGA_CUTS=1 tries all.
func strideOfCuts(t *testing.T) int {
	if given := os.Getenv("TEGA_CUTS"); given != "" {
		stride, err := strconv.Atoi(given)
		if err != nil || stride < 1 {
			t.Fatalf("TEGA_CUTS=%s: give a number of bytes", given)
		}
		return stride
	}
	return 61
}

// persist dials until that works: the link may be cut during the first handshake.
func persist(t *testing.T, ctx context.Context, options tega.Options) *tega.Client {
	t.Helper()
	for {
		client, err := tega.Dial(ctx, options)
		if err == nil {
			t.Cleanup(func() { client.Close() })
			return client
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestALinkThatCutsAnywhere cuts the first connection of a client after each number of bytes, up
// and down, and those after it at random: nothing is lost, and nothing done or heard twice.
func TestALinkThatCutsAnywhere(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--sync", "never", "-L", "WARNING")
	direct := dial(t, tega.Options{Address: server.address, TegaID: "direct", Logger: silent})
	// All that there is to cut, as long as nothing is cut.
	up, down := tellStory(t, server, direct, "whole", func(int) (int, int) { return -1, -1 })
	if up < 1000 || down < 1000 {
		t.Fatalf("a story of %d bytes up and %d down", up, down)
	}
	t.Logf("%d bytes up, %d down", up, down)
	for direction, size := range map[string]int{"up": up, "down": down} {
		for cut := 0; cut <= size; cut += strideOfCuts(t) {
			t.Run(fmt.Sprintf("%s-%d", direction, cut), func(one *testing.T) {
				one.Parallel()
				if t.Failed() {
					one.Skip("another one has failed")
				}
				random := rand.New(rand.NewPCG(uint64(cut), uint64(size)))
				root := fmt.Sprintf("%.1s%04d", direction, cut) // as long as "whole"
				tellStory(one, server, direct, root, func(number int) (int, int) {
					switch {
					case number > 3:
						return -1, -1
					case number > 0:
						return 700 + random.IntN(2500), -1
					case direction == "down":
						return -1, cut
					default:
						return cut, -1
					}
				})
			})
		}
	}
}

// tellStory has a client do and hear all kinds of things over a link that is cut, and gives how
// many bytes its first connection has had.
func tellStory(
	t *testing.T, server *testServer, direct *tega.Client, root string,
	budget func(number int) (up, down int),
) (up, down int) {
	t.Helper()
	const count = 8
	link := startForwarder(t, server.address, budget)
	ctx := short(t)
	client := persist(t, ctx, tega.Hasty(
		tega.Options{Address: link.address(), TegaID: "agent-" + root, Logger: silent},
	))
	now, err := direct.Tx(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watched, err := client.Subscribe(ctx, root+".theirs", tega.From(strconv.FormatInt(now.Seq, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.PutEphemeral(ctx, root+"-here", true); err != nil {
		t.Fatal(err)
	}
	if err := client.Serve(ctx, root+"-f", func(context.Context, *tega.Call) (any, error) {
		return "result", nil
	}); err != nil {
		t.Fatal(err)
	}
	// Both write, beside each other. What the client makes adds up only if each is done once.
	written := make(chan error, count)
	for number := range count {
		go func() {
			_, err := client.Tx(
				ctx, tega.Put(name(root+".mine.k", number), number, tega.IfAbsent()),
			)
			written <- err
		}()
		if _, err := direct.Put(ctx, root+".theirs", number); err != nil {
			t.Fatal(err)
		}
	}
	for range count {
		if err := <-written; err != nil {
			t.Error(err)
		}
	}
	var heard []int
	for len(heard) < count {
		told := next(t, watched.C)
		var value int
		if told.Resync || len(told.Changes) != 1 || told.Changes[0].Into(&value) != nil {
			t.Fatalf("%+v", told)
		}
		heard = append(heard, value)
	}
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7}; !slices.Equal(heard, want) {
		t.Errorf("heard %v", heard)
	}
	select {
	case more := <-watched.C:
		t.Errorf("heard once more: %+v", more)
	default:
	}
	mine := map[string]int{}
	if _, err := direct.Get(ctx, root+".mine", &mine); err != nil || len(mine) != count {
		t.Errorf("%v %v", mine, err)
	}
	if version, err := direct.Get(ctx, root, nil); err != nil || version != 2*count-1 {
		t.Errorf("version %d of %s, not %d: %v", version, root, 2*count-1, err)
	}
	// What is ephemeral is there again, with the function, however often it goes.
	until(t, "the function is there", func() bool {
		var result string
		return direct.Call(ctx, root+"-f", &result) == nil && result == "result"
	})
	until(t, "the ephemeral node is there", func() bool {
		_, err := direct.Get(ctx, root+"-here", nil)
		return err == nil
	})
	if _, err := direct.Delete(ctx, root); err != nil {
		t.Error(err)
	}
	return link.passed()
}

func TestAServerThatIsKilled(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	client := dial(t, tega.Options{Address: server.address, TegaID: "agent"})
	ctx := short(t)
	if _, err := client.PutEphemeral(ctx, "here.agent", map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	watched, err := client.Subscribe(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 50)
	for number := range cap(made) {
		go func() {
			_, err := client.Put(ctx, name("mine.k", number), number, tega.IfAbsent())
			made <- err
		}()
		if number == 25 {
			server.restart()
		}
	}
	for range cap(made) {
		if err := <-made; err != nil {
			t.Error(err)
		}
	}
	if roots, err := client.Roots(ctx); err != nil || roots["mine"] != 49 {
		t.Errorf("%v %v", roots, err)
	}
	other := dial(t, tega.Options{Address: server.address})
	until(t, "the ephemeral node is there again", func() bool {
		_, err := other.Get(ctx, "here.agent.n", nil)
		return err == nil
	})
	if _, err := other.Put(ctx, "r", 1); err != nil {
		t.Fatal(err)
	}
	// The server does not know what was before its start: it tells how all stands as well.
	for {
		told := next(t, watched.C)
		if len(told.Changes) == 1 && string(told.Changes[0].Instance) == "1" {
			break
		}
		if !told.Resync {
			t.Errorf("%+v", told)
		}
	}
}

// TestALinkThatFallsSilent goes on over another one, without having been told.
func TestALinkThatFallsSilent(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	link := startForwarder(t, server.address, func(int) (int, int) { return -1, -1 })
	client := dial(t, tega.Options{
		Address: link.address(), TegaID: "agent", Logger: silent,
		PingInterval: 100 * time.Millisecond, PingTimeout: 500 * time.Millisecond,
	})
	direct := dial(t, tega.Options{Address: server.address})
	ctx := short(t)
	watched, err := client.Subscribe(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	link.stall()
	if _, err := direct.Put(ctx, "r", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, "mine", 1, tega.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	if told := next(t, watched.C); told.Resync || string(told.Changes[0].Instance) != "1" {
		t.Errorf("%+v", told)
	}
}

// TestAnAnswerThatDoesNotCome is not known to have been done: with its id, that is found out.
func TestAnAnswerThatDoesNotCome(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	link := startForwarder(t, server.address, func(int) (int, int) { return -1, -1 })
	client := dial(t, tega.Options{Address: link.address()})
	ctx := short(t)
	link.stall()
	brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := client.Put(brief, "r", 1)
	var why *tega.Error
	if !errors.Is(err, tega.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) ||
		!errors.As(err, &why) || why.TxID == "" {
		t.Fatalf("%v", err)
	}
	direct := dial(t, tega.Options{Address: server.address})
	for range 2 {
		result, err := direct.TxWithID(ctx, why.TxID, tega.Put("r", 1))
		if err != nil || result.Versions["r"] != 0 {
			t.Errorf("%+v %v", result, err)
		}
	}
	if _, err := client.Get(brief, "r", nil); errors.Is(err, tega.ErrOutcomeUnknown) {
		t.Errorf("a read that changes nothing: %v", err)
	}
}

func TestACallIsNeverSentTwice(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	link := startForwarder(t, server.address, func(int) (int, int) { return -1, -1 })
	owner := dial(t, tega.Options{Address: server.address})
	caller := dial(t, tega.Options{Address: link.address()})
	ctx := short(t)
	calls := make(chan bool, 10)
	release := make(chan bool)
	if err := owner.Serve(ctx, "f", func(ctx context.Context, _ *tega.Call) (any, error) {
		calls <- true
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() { called <- caller.Call(ctx, "f", nil) }()
	next(t, calls)
	link.cut()
	if err := next(t, called); !errors.Is(err, tega.ErrOutcomeUnknown) {
		t.Errorf("%v", err)
	}
	close(release)
	// With the next answer, a second call would be there.
	if err := caller.Call(ctx, "f", nil); err != nil {
		t.Error(err)
	}
	if next(t, calls); len(calls) != 0 {
		t.Error("it was sent again")
	}
}

// TestWhatIsTooLarge fails alone: a request, or a message, which nobody waits for.
func TestWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--max-body", "50000")
	owner := dial(t, tega.Options{Address: server.address})
	client := dial(t, tega.Options{Address: server.address, Logger: silent})
	ctx := short(t)
	calls := make(chan bool, 10)
	release := make(chan bool)
	err := owner.Serve(ctx, "f", func(ctx context.Context, _ *tega.Call) (any, error) {
		calls <- true
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 200_000)
	called := make(chan error, 1)
	for _, asks := range []bool{true, false} {
		go func() { called <- client.Call(ctx, "f", nil) }()
		next(t, calls)
		if asks {
			_, err = client.Put(ctx, "r", large)
			is(t, "a change", err, tega.ErrTooLarge, 413)
		} else if err := client.Publish(ctx, "r", large); err != nil {
			t.Error(err)
		}
		if err := next(t, called); !errors.Is(err, tega.ErrOutcomeUnknown) {
			t.Errorf("a call meanwhile: %v", err)
		}
	}
	close(release)
	if _, err := client.Put(ctx, "r", 1, tega.IfAbsent()); err != nil {
		t.Error(err)
	}
}
