package tega_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"tega.internal/tega"
)

// exampleAddress is that of the server that the examples talk to.
var exampleAddress string

// connected is a client for an example.
func connected(id string) *tega.Client {
	client, err := tega.Dial(
		context.Background(),
		tega.Options{Address: exampleAddress, TegaID: id, Logger: silent},
	)
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func ExampleClient_Put() {
	client, ctx := connected("put"), context.Background()
	defer client.Close()

	result, err := client.Put(ctx, tega.Path("routes", "10.0.0.0/24"), map[string]any{"metric": 5})
	if err != nil {
		log.Fatal(err)
	}
	var metric int
	version, err := client.Get(ctx, `routes."10.0.0.0/24".metric`, &metric)
	fmt.Println(result.Versions, version, metric, err)
	// Output: map[routes:0] 0 5 <nil>
}

func ExampleClient_Tx() {
	client, ctx := connected("tx"), context.Background()
	defer client.Close()

	result, err := client.Tx(ctx,
		tega.Put("stock.apples", 3, tega.IfAbsent()),
		tega.Put("stock.pears", 4),
		tega.Get("stock"), // as it was before
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Versions, errors.Is(result.Found[0].Err, tega.ErrNotFound))

	_, err = client.Tx(
		ctx, tega.Put("stock.apples", 2, tega.IfVersion(7)), tega.Delete("stock.pears"),
	)
	var refusal *tega.Error
	if errors.As(err, &refusal) && errors.Is(err, tega.ErrCollision) {
		fmt.Println(refusal.Path, string(refusal.Details["found"]))
	}
	// Output:
	// map[stock:0] true
	// stock.apples 0
}

func ExampleClient_Begin() {
	client, ctx := connected("begin"), context.Background()
	defer client.Close()

	transaction, err := client.Begin(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := transaction.Add(ctx, tega.Put("plan.a", 1), tega.Put("plan.b", 2)); err != nil {
		log.Fatal(err)
	}
	result, err := transaction.Commit(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Versions)
	// Output: map[plan:0]
}

func ExampleClient_GetRegex() {
	client, ctx := connected("regex"), context.Background()
	defer client.Close()

	ports := map[string]int{"eth0": 1, "eth1": 2, "lo": 3}
	if _, err := client.Put(ctx, "if-ne1", ports); err != nil {
		log.Fatal(err)
	}
	matches, err := client.GetRegex(ctx, `if-(.*)\.(eth.)`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(
		len(matches), matches["if-ne1.eth1"].Groups, string(matches["if-ne1.eth1"].Instance),
	)
	// Output: 2 [[ne1] [eth1]] 2
}

func ExampleClient_Subscribe() {
	hears, makes, ctx := connected("hears"), connected("makes"), context.Background()
	defer hears.Close()
	defer makes.Close()

	changes, err := hears.Subscribe(ctx, "config.ne1")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := makes.Put(ctx, "config.ne1.mtu", 1500); err != nil {
		log.Fatal(err)
	}
	if _, err := makes.Delete(ctx, "config"); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		for _, change := range (<-changes.C).Changes {
			fmt.Println(change.Ope, change.Path, change.TegaID, string(change.Instance))
		}
	}
	changes.Close()
	// Output:
	// PUT config.ne1.mtu makes 1500
	// DELETE config.ne1 makes {"mtu":1500}
}

func ExampleClient_Serve() {
	owner, caller, ctx := connected("owner"), connected("caller"), context.Background()
	defer owner.Close()
	defer caller.Close()

	add := func(_ context.Context, call *tega.Call) (any, error) {
		var a, b int
		if err := call.Into(&a, &b); err != nil {
			return nil, err
		}
		return a + b, nil
	}
	if err := owner.Serve(ctx, "calculator.add", add); err != nil {
		log.Fatal(err)
	}
	var sum int
	if err := caller.Call(ctx, "calculator.add", &sum, 1, 2); err != nil {
		log.Fatal(err)
	}
	err := caller.Call(ctx, "calculator.add", &sum, 1)
	fmt.Println(sum, errors.Is(err, tega.ErrCallFailed))
	// Output: 3 true
}

func ExampleClient_Messages() {
	hears, says, ctx := connected("listener"), connected("sayer"), context.Background()
	defer hears.Close()
	defer says.Close()

	alarms, err := hears.Messages(ctx, "alarms.fans")
	if err != nil {
		log.Fatal(err)
	}
	defer alarms.Close()
	if err := says.Publish(ctx, "alarms.fans", map[string]any{"level": 3}); err != nil {
		log.Fatal(err)
	}
	told := <-alarms.C
	fmt.Println(told.Channel, told.TegaID, string(told.Body))
	// Output: alarms.fans sayer {"level":3}
}
