// Package tega is the Go driver of tega db, a networked database of JSON trees.
//
// A [Client] holds one WebSocket to a server, on which any number of requests can be under way.
//
//	client, err := tega.Dial(ctx, tega.Options{Address: "127.0.0.1:8739", TegaID: "agent-1"})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	_, err = client.Put(ctx, "inventory.ne1", map[string]any{"mtu": 1500})
//
// A connection that is lost is made anew, for as long as it takes. Changes and reads that had no
// answer are then sent again, each change with an id under which the server does it once at most;
// calls of functions are not. Ephemeral nodes and functions are put again, and what was subscribed
// to goes on where it was. Whoever waits, waits as long as its context lasts.
//
// A refusal of the server is an [*Error], and errors.Is knows its code:
//
//	if errors.Is(err, tega.ErrCollision) { ... }
//
// All methods of a [Client] may be used from any goroutine.
package tega
