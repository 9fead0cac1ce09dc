package tega_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"tega.internal/tega"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, options := range []tega.Options{
		{Address: "nowhere"}, {Address: "ftp://a:1"}, {Address: "a:0"}, {Address: "a:http"},
		{Address: "http://a:1/path"}, {Address: "http://user@a:1"}, {Address: "::1:8739"},
		{TegaID: "_x"}, {TegaID: "a b"}, {Scope: "wide"},
	} {
		if client, err := tega.Dial(context.Background(), options); err == nil {
			client.Close()
			t.Errorf("%+v", options)
		}
	}
}

// TestContexts has everything wait for a server that is away, as long as its context lasts and no
// longer; or until the server is back.
func TestContexts(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	client := dial(t, tega.Hasty(tega.Options{Address: server.address, Logger: silent}))
	if _, err := client.Put(short(t), "r", 1); err != nil {
		t.Fatal(err)
	}
	open, err := client.Begin(short(t))
	if err != nil {
		t.Fatal(err)
	}
	server.end(syscall.SIGKILL)
	brief, cancel := context.WithTimeout(short(t), 500*time.Millisecond)
	defer cancel()
	// What is sent over a connection that was kept may have arrived.
	if _, err := client.Roots(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	none := func(context.Context, *tega.Call) (any, error) { return nil, nil }
	all := map[string]func(ctx context.Context) error{
		"Get":       func(ctx context.Context) error { return second(client.Get(ctx, "r", nil)) },
		"GetRegex":  func(ctx context.Context) error { return second(client.GetRegex(ctx, "r")) },
		"Put":       func(ctx context.Context) error { return second(client.Put(ctx, "r", 2)) },
		"Tx":        func(ctx context.Context) error { return second(client.Tx(ctx)) },
		"Begin":     func(ctx context.Context) error { return second(client.Begin(ctx)) },
		"Add":       func(ctx context.Context) error { return open.Add(ctx, tega.Put("r", 2)) },
		"Candidate": func(ctx context.Context) error { return second(open.Candidate(ctx)) },
		"Rollback": func(ctx context.Context) error {
			return second(client.Rollback(ctx, "r", -1))
		},
		"Roots":     func(ctx context.Context) error { return second(client.Roots(ctx)) },
		"Publish":   func(ctx context.Context) error { return client.Publish(ctx, "r", 2) },
		"Serve":     func(ctx context.Context) error { return client.Serve(ctx, "f", none) },
		"Call":      func(ctx context.Context) error { return client.Call(ctx, "f", nil) },
		"Subscribe": func(ctx context.Context) error { return second(client.Subscribe(ctx, "r")) },
		"Messages":  func(ctx context.Context) error { return second(client.Messages(ctx, "r")) },
	}
	for what, ask := range all {
		ctx, cancel := context.WithTimeout(short(t), 50*time.Millisecond)
		err := ask(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, tega.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	asked := make(chan error, 2)
	go func() { asked <- all["Put"](short(t)) }()
	go func() { asked <- all["Roots"](short(t)) }()
	server.start(server.port())
	for range cap(asked) {
		if err := next(t, asked); err != nil {
			t.Errorf("the server is back: %v", err)
		}
	}
}

// TestABlackHole dials what accepts and says nothing: the context ends it.
func TestABlackHole(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	defer server.Listener.Close()
	ctx, cancel := context.WithCancel(context.Background())
	dialed := make(chan error, 1)
	go func() {
		_, err := tega.Dial(ctx, tega.Options{Address: server.Listener.Addr().String()})
		dialed <- err
	}()
	accepted, err := server.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	cancel()
	if err := next(t, dialed); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestWhatIsNoServer says so, and where.
func TestWhatIsNoServer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 404, 502} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
		}))
		defer other.Close()
		_, err := tega.Dial(short(t), tega.Options{Address: other.URL})
		var why *tega.Error
		if !errors.As(err, &why) || why.Status != status ||
			!strings.Contains(err.Error(), other.Listener.Addr().String()) {
			t.Errorf("%d: %v", status, err)
		}
	}
}
