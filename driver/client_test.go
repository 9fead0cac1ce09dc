package tega_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"testing"
	"time"

	"tega.internal/tega"
)

type port struct {
	MTU   int64    `json:"mtu"`
	Up    bool     `json:"up"`
	Tags  []string `json:"tags,omitempty"`
	Speed *big.Int `json:"speed,omitempty"`
}

func TestValuesGoInAndComeOut(t *testing.T) {
	t.Parallel()
	client, ctx := dial(t, tega.Options{Address: startServer(t).address}), short(t)
	given := port{
		1500,
		true,
		[]string{"a<b", "日本\u2028\ufffd"},
		new(big.Int).Lsh(big.NewInt(1), 70),
	}
	made, err := client.Put(ctx, `ports."ge-0/0/0.100"`, given)
	if err != nil {
		t.Fatal(err)
	}
	if made.Versions["ports"] != 0 || made.Seq != 1 {
		t.Errorf("%+v", made)
	}
	var got port
	version, err := client.Get(ctx, `ports."ge-0/0/0.100"`, &got)
	if err != nil || version != 0 || !reflect.DeepEqual(got, given) {
		t.Errorf("%+v %d %v", got, version, err)
	}
	numbers := []string{"9007199254740993", "-9223372036854775808", "18446744073709551616", "0.1"}
	for _, number := range numbers {
		if _, err := client.Put(ctx, "n", json.Number(number)); err != nil {
			t.Fatal(err)
		}
		var any any
		if _, err := client.Get(ctx, "n", &any); err != nil || any != json.Number(number) {
			t.Errorf("%s came back as %v, %v", number, any, err)
		}
	}
	if _, err := client.Put(ctx, "n", int64(math.MaxInt64)); err != nil {
		t.Fatal(err)
	}
	var long int64
	if _, err := client.Get(ctx, "n", &long); err != nil || long != math.MaxInt64 {
		t.Errorf("%d %v", long, err)
	}
	var text string
	if _, err := client.Get(ctx, "n", &text); err == nil {
		t.Error("a number is read as a text")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	client, ctx := dial(t, tega.Options{Address: startServer(t).address}), short(t)
	if _, err := client.Put(ctx, "r.a", 1, tega.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	_, err := client.Put(ctx, "r.a", 2, tega.IfVersion(7))
	var why *tega.Error
	if !errors.Is(err, tega.ErrCollision) || !errors.Is(err, tega.ErrRefused) ||
		errors.Is(err, tega.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if !errors.As(err, &why) || why.Path != "r.a" || why.Status != 409 ||
		string(why.Details["expected"]) != "7" {
		t.Errorf("%#v", why)
	}
	none := map[string]any{"_version": 1}
	aged := tega.AtVersion(9)
	twice := json.RawMessage(`{"a":1,"a":2}`)
	for what, one := range map[string]struct {
		err, want error
	}{
		"absent":      {second(client.Get(ctx, "r.b", nil)), tega.ErrNotFound},
		"old version": {second(client.Get(ctx, "r", nil, aged)), tega.ErrNoSuchVersion},
		"reserved":    {second(client.Put(ctx, "r._a", 1)), tega.ErrMalformed},
		"inside":      {second(client.Put(ctx, "r", none)), tega.ErrMalformed},
		"path":        {second(client.Delete(ctx, "r..a")), tega.ErrMalformed},
		"NaN":         {second(client.Put(ctx, "r", math.NaN())), tega.ErrMalformed},
		"not UTF-8":   {second(client.Put(ctx, "r", "\xff")), tega.ErrMalformed},
		"key":         {second(client.Put(ctx, tega.Path("\"\xff"), 1)), tega.ErrMalformed},
		"duplicate":   {second(client.Put(ctx, "r", twice)), tega.ErrMalformed},
		"leaf":        {second(client.Put(ctx, "r.a.b", 1)), tega.ErrLeafInTheWay},
		"no function": {client.Call(ctx, "r.f", nil), tega.ErrNoSuchFunction},
		"pattern":     {second(client.GetRegex(ctx, "(?=x)")), tega.ErrMalformed},
		"command":     {client.Manage(ctx, "GET", "nothing", nil, nil), tega.ErrNoSuchCommand},
		"rollback":    {second(client.Rollback(ctx, "r", 9)), tega.ErrNoSuchVersion},
	} {
		if !errors.Is(one.err, one.want) {
			t.Errorf("%s: %v", what, one.err)
		}
	}
}

// second is the error of two results.
func second[T any](_ T, err error) error { return err }

func TestATransaction(t *testing.T) {
	t.Parallel()
	client, ctx := dial(t, tega.Options{Address: startServer(t).address}), short(t)
	first, err := client.TxWithID(
		ctx, "once", tega.Put("a", 1), tega.Get("a"), tega.Put("b.c", "x"), tega.Get("b"),
	)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Found) != 2 || !errors.Is(first.Found[0].Err, tega.ErrNotFound) ||
		first.Found[1].Err == nil {
		t.Errorf("%+v", first)
	}
	again, err := client.TxWithID(ctx, "once", tega.Put("a", 1), tega.Put("b.c", "x"))
	if err != nil || again.Seq != first.Seq || again.Versions["a"] != 0 {
		t.Errorf("%+v %v", again, err)
	}
	_, err = client.Tx(ctx, tega.Put("a", 2), tega.Delete("b.c", tega.IfVersion(5)))
	if !errors.Is(err, tega.ErrCollision) {
		t.Errorf("%v", err)
	}
	matches, err := client.GetRegex(ctx, `(.)\.(c)`)
	if err != nil || len(matches) != 1 ||
		!reflect.DeepEqual(matches["b.c"].Groups, [][]string{{"b"}, {"c"}}) {
		t.Errorf("%v %v", matches, err)
	}
	open, err := client.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := open.Add(ctx, tega.Put("a", 3), tega.Delete("b.c")); err != nil {
		t.Fatal(err)
	}
	trees, err := open.Candidate(ctx)
	if err != nil || len(trees) != 2 {
		t.Errorf("%v %v", trees, err)
	}
	done, err := open.Commit(ctx)
	if err != nil || done.Versions["a"] != 1 {
		t.Errorf("%+v %v", done, err)
	}
	if repeated, err := open.Commit(ctx); err != nil || repeated.Seq != done.Seq {
		t.Errorf("%+v %v", repeated, err)
	}
	if _, err := client.Rollback(ctx, "a", -1); err != nil {
		t.Error(err)
	}
	var a int
	if _, err := client.Get(ctx, "a", &a); err != nil || a != 1 {
		t.Errorf("%d %v", a, err)
	}
	old, err := client.Old(ctx)
	if err != nil || !reflect.DeepEqual(old["a"], []int64{0, 1}) {
		t.Errorf("%v %v", old, err)
	}
}

func TestCallsAndMessages(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	owner := dial(t, tega.Options{Address: server.address, TegaID: "owner"})
	caller := dial(t, tega.Options{Address: server.address, TegaID: "caller"})
	ctx := short(t)
	err := owner.Serve(ctx, "f.add", func(_ context.Context, call *tega.Call) (any, error) {
		var a, b int64
		if err := call.Into(&a, &b); err != nil {
			return nil, err
		}
		return a + b, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Serve(ctx, `f."v1.0 (x)"`, func(context.Context, *tega.Call) (any, error) {
		panic("whatever")
	}); err != nil {
		t.Fatal(err)
	}
	var sum int64
	if err := caller.Call(ctx, "f.add", &sum, 1, int64(1)<<60); err != nil || sum != 1<<60+1 {
		t.Errorf("%d %v", sum, err)
	}
	if err := caller.Call(ctx, "f.add", nil, 1); !errors.Is(err, tega.ErrCallFailed) {
		t.Errorf("%v", err)
	}
	if err := caller.Call(ctx, `f."v1.0 (x)"`, nil); !errors.Is(err, tega.ErrCallFailed) {
		t.Errorf("%v", err)
	}
	err = owner.Serve(ctx, "f.reads", func(ctx context.Context, _ *tega.Call) (any, error) {
		_, err := owner.Get(ctx, "nothing", nil)
		return nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = caller.Call(ctx, "f.reads", nil)
	if !errors.Is(err, tega.ErrCallFailed) || errors.Is(err, tega.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// Of oneself, and without any result.
	if err := owner.Call(ctx, "f.add", &sum, -1, 1); err != nil || sum != 0 {
		t.Errorf("%d %v", sum, err)
	}
	if err := owner.Unserve(ctx, "f.add"); err != nil {
		t.Error(err)
	}
	if err := caller.Call(ctx, "f.add", nil, 1, 2); !errors.Is(err, tega.ErrNoSuchFunction) {
		t.Errorf("%v", err)
	}
	messages, err := caller.MessagesRegex(ctx, `alarms\..*`)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []any{nil, 0, map[string]any{"level": 3}} {
		if err := owner.Publish(ctx, "alarms.ne1", value); err != nil {
			t.Fatal(err)
		}
		got := next(t, messages.C)
		want, _ := json.Marshal(value)
		if got.Channel != "alarms.ne1" || got.TegaID != "owner" ||
			string(got.Body) != string(want) {
			t.Errorf("%+v", got)
		}
	}
	messages.Close()
	if _, open := <-messages.C; open || messages.Err() != nil {
		t.Error("it goes on", messages.Err())
	}
}

func TestChangesAreHeard(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	hears := dial(t, tega.Options{Address: server.address})
	makes := dial(t, tega.Options{Address: server.address, TegaID: "makes"})
	ctx := short(t)
	below, err := hears.Subscribe(ctx, "r.a")
	if err != nil {
		t.Fatal(err)
	}
	all, err := hears.SubscribeRegex(ctx, "r.*", tega.From("0"))
	if err != nil {
		t.Fatal(err)
	}
	both := map[string]any{"a": 1, "b": 2}
	if _, err := makes.Tx(ctx, tega.Put("r", both), tega.Put("other", 1)); err != nil {
		t.Fatal(err)
	}
	got := next(t, below.C)
	if len(got.Changes) != 1 || got.Changes[0].Path != "r.a" ||
		string(got.Changes[0].Instance) != "1" ||
		got.Resync {
		t.Errorf("%+v", got)
	}
	// The cut for the other subscription is no change of this one.
	got = next(t, all.C)
	if len(got.Changes) != 1 || got.Changes[0].Path != "r" || got.Changes[0].TegaID != "makes" {
		t.Errorf("%+v", got)
	}
	if _, err := makes.Delete(ctx, "r"); err != nil {
		t.Fatal(err)
	}
	if got = next(t, below.C); got.Changes[0].Ope != tega.OpeDelete {
		t.Errorf("%+v", got)
	}
	if _, err := makes.Rollback(ctx, "r", -1); err != nil {
		t.Fatal(err)
	}
	if got = next(t, below.C); got.Changes[0].Ope != tega.OpeRollback ||
		got.Changes[0].Backto != -1 {
		t.Errorf("%+v", got)
	}
	place := got.Place
	below.Close()
	if _, err := makes.Put(ctx, "r.a", 5); err != nil {
		t.Fatal(err)
	}
	resumed, err := hears.Subscribe(ctx, "r.a", tega.From(place))
	if err != nil {
		t.Fatal(err)
	}
	if got = next(t, resumed.C); string(got.Changes[0].Instance) != "5" {
		t.Errorf("%+v", got)
	}
	unknown, err := hears.Subscribe(ctx, "r.a", tega.From("7@another-life"))
	if err != nil {
		t.Fatal(err)
	}
	if got = next(t, unknown.C); !got.Resync || string(got.Changes[0].Instance) != "5" {
		t.Errorf("%+v", got)
	}
}

func TestTheEnds(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	first := dial(t, tega.Options{Address: server.address, TegaID: "one"})
	ctx := short(t)
	if _, err := first.PutEphemeral(ctx, "here.one", true); err != nil {
		t.Fatal(err)
	}
	sub, err := first.Subscribe(ctx, "here")
	if err != nil {
		t.Fatal(err)
	}
	second := dial(t, tega.Options{Address: server.address, TegaID: "one"})
	next(t, closes(first.Done()))
	if !errors.Is(first.Err(), tega.ErrTakenOver) {
		t.Errorf("%v", first.Err())
	}
	if _, open := <-sub.C; open || !errors.Is(sub.Err(), tega.ErrTakenOver) {
		t.Errorf("%v", sub.Err())
	}
	if _, err := first.Put(ctx, "a", 1); !errors.Is(err, tega.ErrTakenOver) {
		t.Errorf("%v", err)
	}
	// The nodes stay, until the session ends.
	if _, err := second.Get(ctx, "here.one", nil); err != nil {
		t.Error(err)
	}
	other := dial(t, tega.Options{Address: server.address})
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := second.Put(ctx, "a", 1); err != tega.ErrClientClosed {
		t.Errorf("%v", err)
	}
	until(t, "its nodes are gone", func() bool {
		_, err := other.Get(ctx, "here.one", nil)
		return errors.Is(err, tega.ErrNotFound)
	})
	_, err = tega.Dial(ctx, tega.Options{Address: server.address, TegaID: "srv"})
	if !errors.Is(err, tega.ErrRefused) {
		t.Errorf("the server's own id: %v", err)
	}
	if _, err := tega.Dial(ctx, tega.Options{Address: "127.0.0.1:1"}); err == nil {
		t.Error("nobody listens there")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := other.Put(ended, "never", 1); !errors.Is(err, context.Canceled) ||
		errors.Is(err, tega.ErrOutcomeUnknown) {
		t.Errorf("%v", err)
	}
	if _, err := other.Get(ctx, "never", nil); !errors.Is(err, tega.ErrNotFound) {
		t.Errorf("%v", err)
	}
	why := errors.New("why")
	caused, giveUp := context.WithCancelCause(ctx)
	giveUp(why)
	if _, err := other.Roots(caused); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if _, err := second.Roots(ctx); err != tega.ErrClientClosed {
		t.Errorf("%v", err)
	}
	brief, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	watched, err := other.Subscribe(ctx, "w")
	if err != nil {
		t.Fatal(err)
	}
	watched.Close()
	<-brief.Done()
	if _, err := other.Subscribe(brief, "w"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// closes passes on that a channel is closed, as a value.
func closes(done <-chan struct{}) <-chan bool {
	made := make(chan bool, 1)
	go func() {
		<-done
		made <- true
	}()
	return made
}
