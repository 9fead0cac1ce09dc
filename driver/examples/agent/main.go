// An agent for small boxes: it watches its configuration, applies it, reports what it sees, and
// offers a function. It does the same as doc/examples/agent.py, as one static binary.
//
// It measures how long a TCP connection to each of its targets takes. Copy it and put your own work
// in the place of probe. Start a server and the agent, and give it something to do:
//
//	./scripts/global
//	(cd driver && go run ./examples/agent ne1)
//	./scripts/cli put config-ne1 '{interval: 2, targets: {server: "127.0.0.1:8739"}}'
//	./scripts/cli get operational-ne1
//	./scripts/cli rpc operational-ne1.probe 127.0.0.1:8739
//
// What it reports are ephemeral nodes. They are there as long as the agent is connected: when it
// ends, or is killed, or its link breaks, everybody who watches them is told.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"tega.internal/tega"
)

// settings are what it is configured with.
type settings struct {
	Interval float64           `json:"interval"` // seconds
	Targets  map[string]string `json:"targets"`  // HOST:PORT by name
}

// byDefault is what it does until it is configured, and wherever its configuration says nothing.
func byDefault() settings { return settings{Interval: 5} }

// report is what a probe has seen.
type report struct {
	Up     bool    `json:"up"`
	Ms     float64 `json:"ms,omitempty"`
	Reason string  `json:"reason,omitempty"`
}

// probe connects to HOST:PORT, and says how long that took.
func probe(ctx context.Context, target string) report {
	started := time.Now()
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return report{Reason: err.Error()}
	}
	took := time.Since(started)
	conn.Close()
	return report{Up: true, Ms: float64(took.Microseconds()) / 1000}
}

// agent is an agent of one network element.
type agent struct {
	client              *tega.Client
	config, operational string

	mu       sync.Mutex
	settings settings
	// changed is told that they are others now.
	changed chan struct{}
}

// run works until the context ends, or the session does.
func (a *agent) run(ctx context.Context) error {
	offered := func(ctx context.Context, call *tega.Call) (any, error) {
		var target string
		if err := call.Into(&target); err != nil {
			return nil, err
		}
		return probe(ctx, target), nil
	}
	if err := a.client.Serve(ctx, a.operational+".probe", offered); err != nil {
		return err
	}
	followed := make(chan error, 1)
	ctx, stop := context.WithCancel(ctx)
	go func() {
		defer stop()
		followed <- a.follow(ctx)
	}()
	reported := a.reportAll(ctx)
	stop()
	if err := <-followed; err != nil {
		return err
	}
	return reported
}

// follow keeps to the configuration: as it is now, and as it changes.
func (a *agent) follow(ctx context.Context) error {
	changes, err := a.client.Subscribe(ctx, a.config, tega.From("0"))
	if err != nil {
		return err
	}
	defer changes.Close()
	for told := range changes.C {
		// Whatever has changed, and however many changes are still to come: read it all. What a
		// person has written may be wrong, and must not end the agent.
		given := byDefault()
		_, err := a.client.Get(ctx, a.config, &given)
		var refusal *tega.Error
		switch {
		case errors.As(err, &refusal) && !errors.Is(err, tega.ErrNotFound):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && refusal == nil:
			slog.Warn("the configuration cannot be read", "reason", err)
			given = byDefault()
		}
		slog.Info("configured", "seq", told.Seq, "settings", given)
		a.mu.Lock()
		a.settings = given
		a.mu.Unlock()
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
	return changes.Err()
}

// reportAll probes and reports, each interval and whenever the configuration changes.
func (a *agent) reportAll(ctx context.Context) error {
	told := map[string]string{}
	for ctx.Err() == nil {
		a.mu.Lock()
		now := a.settings
		a.mu.Unlock()
		results := make(chan tega.Op)
		for name, target := range now.Targets {
			go func() { results <- tega.PutEphemeral(a.path(name), probe(ctx, target)) }()
		}
		// All of it as one transaction: nobody sees half of a report.
		var report []tega.Op
		for range now.Targets {
			report = append(report, <-results)
		}
		for name := range told {
			if _, still := now.Targets[name]; !still {
				report = append(report, tega.Delete(a.path(name)))
			}
		}
		if _, err := a.client.Tx(ctx, report...); err != nil {
			return err
		}
		told = now.Targets
		interval := time.Duration(min(max(now.Interval, 0.1), 86400) * float64(time.Second))
		select {
		case <-ctx.Done():
		case <-a.changed:
		case <-time.After(interval):
		}
	}
	return ctx.Err()
}

// path is where the report on a target goes: the name of one is a key of any characters.
func (a *agent) path(target string) string {
	return tega.Path(a.operational, "targets", target)
}

// dial connects, for as long as it takes until there is a server.
func dial(ctx context.Context, options tega.Options) (*tega.Client, error) {
	for {
		client, err := tega.Dial(ctx, options)
		var refusal *tega.Error
		isFinal := errors.As(err, &refusal) && refusal.Status/100 == 4 &&
			!errors.Is(err, tega.ErrOverLimit)
		if err == nil || isFinal || ctx.Err() != nil {
			return client, err
		}
		slog.Warn("trying again", "reason", err)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func main() {
	address := flag.String("a", "127.0.0.1", "address of the server")
	port := flag.Int("p", 8739, "port of the server")
	ca := flag.String("ca", "", "PEM file of the authority that vouches for the server")
	flag.Usage = func() {
		to := flag.CommandLine.Output()
		fmt.Fprintln(to, "usage: agent [-a ADDRESS] [-p PORT] [-ca FILE] NAME")
		fmt.Fprintln(to, "TEGA_TOKEN in the environment is sent to the server.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := start(flag.Arg(0), net.JoinHostPort(*address, fmt.Sprint(*port)), *ca); err != nil {
		slog.Error("the agent ends", "reason", err)
		os.Exit(1)
	}
}

func start(name, address, ca string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	options := tega.Options{
		Address: address,
		TegaID:  "agent-" + name,
		Token:   os.Getenv("TEGA_TOKEN"),
	}
	if ca != "" {
		var err error
		if options.TLS, err = tega.TLSFiles(ca, "", ""); err != nil {
			return err
		}
	}
	client, err := dial(ctx, options)
	if err != nil {
		return err
	}
	slog.Info("connected", "server", address, "tega_id", client.TegaID())
	made := &agent{
		client: client, config: "config-" + name, operational: "operational-" + name,
		settings: byDefault(), changed: make(chan struct{}, 1),
	}
	err = made.run(ctx)
	if ctx.Err() != nil {
		// It was told to end.
		err = nil
	}
	return errors.Join(err, client.Close())
}
