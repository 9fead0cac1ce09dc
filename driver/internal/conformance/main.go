// The Go end of tests/conformance: it does what it is told by lines on standard input, and answers
// each with a line. tests/conformance/README.md says what they are.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"time"

	"tega.internal/tega"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// order is what a line tells.
type order struct {
	Do        string          `json:"do"`
	Client    string          `json:"client"`
	Address   string          `json:"address"`
	TegaID    string          `json:"tega_id"`
	Token     string          `json:"token"`
	Path      string          `json:"path"`
	Value     json.RawMessage `json:"value"`
	Version   *int64          `json:"version"`
	Ephemeral bool            `json:"ephemeral"`
	TxID      string          `json:"txid"`
	Ops       []order         `json:"ops"`
	Root      string          `json:"root"`
	Backto    int64           `json:"backto"`
	Regex     bool            `json:"regex"`
	Scope     tega.Scope      `json:"scope"`
	From      string          `json:"from"`
	Stream    string          `json:"stream"`
	Function  string          `json:"function"`
	Args      []any           `json:"args"`
	Kwargs    map[string]any  `json:"kwargs"`

	Consistent bool `json:"consistent"`
}

// stream gives changes or messages.
type stream struct {
	next  func(ctx context.Context) (any, error)
	close func()
}

// end is all that this program has.
type end struct {
	clients      map[string]*tega.Client
	transactions map[string]*tega.Transaction
	streams      map[string]stream
}

func main() {
	if err := obey(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func obey(from io.Reader, to io.Writer) error {
	e := &end{map[string]*tega.Client{}, map[string]*tega.Transaction{}, map[string]stream{}}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			for _, client := range e.clients {
				if err := client.Close(); err != nil {
					return err
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := json.NewEncoder(to).Encode(e.answer(line)); err != nil {
			return err
		}
	}
}

func (e *end) answer(line []byte) map[string]any {
	var given order
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&given); err != nil {
		return map[string]any{"failed": err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result, err := e.do(ctx, given)
	var refusal *tega.Error
	switch {
	case errors.As(err, &refusal):
		return map[string]any{"refused": map[string]any{
			"code": refusal.Code, "status": refusal.Status, "message": refusal.Message,
		}}
	case err != nil:
		return map[string]any{"failed": err.Error()}
	}
	return map[string]any{"done": result}
}

func (e *end) do(ctx context.Context, given order) (any, error) {
	switch given.Do {
	case "open":
		client, err := tega.Dial(ctx, tega.Options{
			Address: given.Address, TegaID: given.TegaID, Token: given.Token,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
		if err == nil {
			e.clients[given.Client] = client
		}
		return nil, err
	case "next":
		one, there := e.streams[given.Stream]
		if !there {
			return nil, fmt.Errorf("no stream %q", given.Stream)
		}
		return one.next(ctx)
	case "stop":
		e.streams[given.Stream].close()
		return nil, nil
	}
	client := e.clients[given.Client]
	if client == nil {
		return nil, fmt.Errorf("no client %q", given.Client)
	}
	switch given.Do {
	case "close":
		delete(e.clients, given.Client)
		return nil, client.Close()
	case "put", "delete":
		return e.change(ctx, client, given)
	case "get":
		var value any
		_, err := client.Get(ctx, given.Path, &value, options(given)...)
		return value, err
	case "match":
		return client.GetRegex(ctx, given.Path, options(given)...)
	case "tx":
		return transact(ctx, client, given)
	case "begin":
		transaction, err := client.Begin(ctx)
		if err != nil {
			return nil, err
		}
		e.transactions[transaction.ID] = transaction
		return transaction.ID, nil
	case "candidate", "commit", "cancel":
		return e.finish(ctx, given)
	case "rollback":
		return summary(client.Rollback(ctx, given.Root, given.Backto))
	case "roots":
		return client.Roots(ctx)
	case "old":
		return client.Old(ctx)
	case "snapshot":
		return nil, client.Manage(ctx, "POST", "ss", url.Values{"tega_id": {client.TegaID()}}, nil)
	case "subscribe", "listen":
		return nil, e.hear(client, given)
	case "publish":
		return nil, client.Publish(ctx, given.Path, given.Value)
	case "serve":
		return nil, client.Serve(ctx, given.Path, functions[given.Function])
	case "unserve":
		return nil, client.Unserve(ctx, given.Path)
	case "call":
		var result any
		err := client.CallKwargs(ctx, given.Path, &result, given.Kwargs, given.Args...)
		return result, err
	}
	return nil, fmt.Errorf("unknown order %q", given.Do)
}

func options(given order) []tega.Option {
	var made []tega.Option
	if given.Version != nil {
		made = append(made, tega.IfVersion(*given.Version))
	}
	if given.Consistent {
		made = append(made, tega.Consistent())
	}
	return made
}

func operation(given order) (tega.Op, error) {
	switch {
	case given.Do == "put" && given.Ephemeral:
		return tega.PutEphemeral(given.Path, given.Value, options(given)...), nil
	case given.Do == "put":
		return tega.Put(given.Path, given.Value, options(given)...), nil
	case given.Do == "delete":
		return tega.Delete(given.Path, options(given)...), nil
	case given.Do == "get":
		return tega.Get(given.Path, options(given)...), nil
	}
	return tega.Op{}, fmt.Errorf("%q is no operation", given.Do)
}

func (e *end) change(ctx context.Context, client *tega.Client, given order) (any, error) {
	op, err := operation(given)
	if err != nil {
		return nil, err
	}
	if given.TxID != "" {
		transaction := e.transactions[given.TxID]
		if transaction == nil {
			return nil, fmt.Errorf("no transaction %q", given.TxID)
		}
		return nil, transaction.Add(ctx, op)
	}
	return summary(client.Tx(ctx, op))
}

func transact(ctx context.Context, client *tega.Client, given order) (any, error) {
	var ops []tega.Op
	for _, one := range given.Ops {
		op, err := operation(one)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	result, err := client.TxWithID(ctx, given.TxID, ops...)
	made, err := summary(result, err)
	if err != nil {
		return nil, err
	}
	found := []any{}
	for _, one := range result.Found {
		var value any
		var refusal *tega.Error
		if err := one.Into(&value); errors.As(err, &refusal) {
			value = map[string]any{"code": refusal.Code}
		}
		found = append(found, value)
	}
	made["found"] = found
	return made, nil
}

func summary(result *tega.Result, err error) (map[string]any, error) {
	if err != nil {
		return nil, err
	}
	return map[string]any{"seq": result.Seq, "versions": result.Versions}, nil
}

func (e *end) finish(ctx context.Context, given order) (any, error) {
	transaction := e.transactions[given.TxID]
	if transaction == nil {
		return nil, fmt.Errorf("no transaction %q", given.TxID)
	}
	switch given.Do {
	case "candidate":
		return transaction.Candidate(ctx)
	case "cancel":
		return nil, transaction.Cancel(ctx)
	}
	return summary(transaction.Commit(ctx))
}

func (e *end) hear(client *tega.Client, given order) error {
	ctx := context.Background()
	options := []tega.SubscribeOption{tega.From(given.From)}
	if given.Scope != "" {
		options = append(options, tega.InScope(given.Scope))
	}
	if given.Do == "listen" {
		hear := client.Messages
		if given.Regex {
			hear = client.MessagesRegex
		}
		messages, err := hear(ctx, given.Path, options...)
		if err == nil {
			e.streams[given.Stream] = stream{messageOf(messages), messages.Close}
		}
		return err
	}
	hear := client.Subscribe
	if given.Regex {
		hear = client.SubscribeRegex
	}
	subscription, err := hear(ctx, given.Path, options...)
	if err == nil {
		e.streams[given.Stream] = stream{changeOf(subscription), subscription.Close}
	}
	return err
}

// changeOf gives the changes of a subscription one by one.
func changeOf(subscription *tega.Subscription) func(context.Context) (any, error) {
	var waiting []any
	return func(ctx context.Context) (any, error) {
		for len(waiting) == 0 {
			select {
			case told, open := <-subscription.C:
				if !open {
					return nil, subscription.Err()
				}
				for _, change := range told.Changes {
					var value any
					if err := change.Into(&value); err != nil {
						return nil, err
					}
					waiting = append(waiting, map[string]any{
						"ope": change.Ope, "path": change.Path, "tega_id": change.TegaID,
						"instance": value, "seq": told.Seq, "version": change.Version,
						"resync": told.Resync,
					})
				}
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		first := waiting[0]
		waiting = waiting[1:]
		return first, nil
	}
}

func messageOf(messages *tega.Messages) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		select {
		case told, open := <-messages.C:
			if !open {
				return nil, messages.Err()
			}
			var value any
			err := told.Into(&value)
			return map[string]any{
				"channel": told.Channel,
				"tega_id": told.TegaID,
				"message": value,
			}, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// functions are those that can be served.
var functions = map[string]tega.Func{
	"echo": func(_ context.Context, call *tega.Call) (any, error) {
		kwargs := call.Kwargs
		if kwargs == nil {
			kwargs = map[string]json.RawMessage{}
		}
		return map[string]any{"args": call.Args, "kwargs": kwargs}, nil
	},
	"add": func(_ context.Context, call *tega.Call) (any, error) {
		var a, b int64
		err := call.Into(&a, &b)
		return a + b, err
	},
	"null": func(context.Context, *tega.Call) (any, error) { return nil, nil },
	"fail": func(context.Context, *tega.Call) (any, error) {
		return nil, errors.New("it cannot be done")
	},
	"refuse": func(context.Context, *tega.Call) (any, error) {
		return nil, fmt.Errorf("reading r: %w", tega.ErrNotFound)
	},
	"wait": func(ctx context.Context, _ *tega.Call) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	},
}
