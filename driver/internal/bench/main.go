// The Go end of the workload "drivers" of scripts/bench: transactions of one durable put, so many
// at a time. It prints what it has measured as JSON.
//
//	bench ADDRESS IN_FLIGHT SECONDS GENERATION
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"tega.internal/tega"
)

// keys is how many documents each of those in flight has for itself: as in systems/base.py.
const keys = 16

// document is what is put: as in values.py.
type document struct {
	Address     string `json:"address"`
	Admin       bool   `json:"admin"`
	Description string `json:"description"`
	MTU         int    `json:"mtu"`
	Peer        struct {
		Name string `json:"name"`
		Port string `json:"port"`
	} `json:"peer"`
	Speed int    `json:"speed"`
	Tag   string `json:"tag"`
}

// measured is what was measured.
type measured struct {
	Done      []int     `json:"done"`
	Seconds   float64   `json:"seconds"`
	Latencies []float64 `json:"latencies"`
	CPU       float64   `json:"cpu"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(given []string) error {
	if len(given) != 4 {
		return errors.New("usage: bench ADDRESS IN_FLIGHT SECONDS GENERATION")
	}
	inFlight, err := strconv.Atoi(given[1])
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(given[2], 64)
	if err != nil {
		return err
	}
	generation, err := strconv.Atoi(given[3])
	if err != nil {
		return err
	}
	ctx := context.Background()
	client, err := tega.Dial(ctx, tega.Options{
		Address: given[0],
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	made, err := measure(ctx, client, inFlight, seconds, generation)
	if err := errors.Join(err, client.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(made)
}

func measure(
	ctx context.Context, client *tega.Client, inFlight int, seconds float64, generation int,
) (*measured, error) {
	made := &measured{Done: make([]int, inFlight)}
	failures := make([]error, inFlight)
	latencies := make([][]float64, inFlight)
	before, err := cpuTime()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	stop := start.Add(time.Duration(seconds * float64(time.Second)))
	var group sync.WaitGroup
	for number := range inFlight {
		group.Add(1)
		go func() {
			defer group.Done()
			one := document{Address: "10.20.30.40/24", Admin: true, MTU: 9000, Speed: 10000,
				Description: "uplink to the core, second floor, rack 12"}
			one.Peer.Name, one.Peer.Port = "ne2", "ge-0/0/1"
			for begun := time.Now(); begun.Before(stop); {
				serial := made.Done[number]
				one.Tag = fmt.Sprintf("%06d-%04d-%010d", generation, number, serial)
				path := fmt.Sprintf("bench.c%d.k%d", number, serial%keys)
				if _, err := client.Tx(ctx, tega.Put(path, &one)); err != nil {
					failures[number] = err
					return
				}
				made.Done[number]++
				now := time.Now()
				latencies[number] = append(latencies[number], now.Sub(begun).Seconds())
				begun = now
			}
		}()
	}
	group.Wait()
	made.Seconds = time.Since(start).Seconds()
	after, err := cpuTime()
	made.CPU = after - before
	made.Latencies = slices.Concat(latencies...)
	slices.Sort(made.Latencies)
	return made, errors.Join(append(failures, err)...)
}

// cpuTime is how many seconds of a processor this process has used.
func cpuTime() (float64, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds(), err
}
