package tega

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"tega.internal/tega/internal/wire"
)

// FuzzSession lets a server say whatever it may, a message a time: nothing of it ends the program,
// and what is asked has one answer at most.
func FuzzSession(f *testing.F) {
	for _, name := range []string{"messages.json", "refused.json", "sequences.json"} {
		text, err := os.ReadFile("../tests/vectors/" + name)
		if err != nil {
			f.Fatal(err)
		}
		var vectors any
		if err := json.Unmarshal(text, &vectors); err != nil {
			f.Fatal(err)
		}
		for _, said := range wires(vectors) {
			f.Add(said)
		}
	}
	for _, said := range []string{
		"NOTIFY\n" +
			`[{"seq":3,"ope":"PUT","path":"r","tega_id":"x","version":1,"instance":{"a":1}},` +
			`{"seq":3,"ope":"PUT","path":"r.a","tega_id":"x","version":1,"instance":1}]` +
			"\x00NOTIFY\n" + `[{"seq":4,"ope":"ROLLBACK","path":"r","backto":-1,"instance":null}]` +
			"\x00NOTIFY\n[]\x00NOTIFY\nnull\x00NOTIFY\n[{}]",
		"ERROR gone\n" + `{"message":"m","path":"r.a","seq":9,"life":"b"}` + "\x00NOTIFY\n[]",
		"ERROR gone\n" + `{"message":"m","path":"r\\..*","regex_flag":true,"seq":9}` +
			"\x00NOTIFY\n" + `[{"seq":1,"ope":"PUT","path":"r.b","instance":2}]`,
		"ERROR forbidden\n" + `{"message":"m","path":"r.a","regex_flag":false}`,
		"MESSAGE r.a x\n" + `{"message":[1]}`,
		"RESPONSE 1 TX c\n" + `{"seq":1,"versions":{"r":1},"results":[]}` +
			"\x00RESPONSE 2 RPC c\n7",
		"RESPONSE 1 TX c ERROR\n" + `{"code":"collision"}` + "\x00RESPONSE 2 RPC c ERROR\n[]",
		"REQUEST 1 RPC x f\n" + `{"args":[1],"kwargs":{"a":2}}` + "\x00REQUEST 2 SYNC x -\nnull",
		"pong 1\x00pong 2\x00NOTIFY\n[]\x00pong 99\x00lost\x00pong 3",
	} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		s, err := newSession(Options{
			TegaID: "c", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Buffer: 2000,
		})
		if err != nil {
			t.Fatal(err)
		}
		connected := func() *link {
			l := newLink(s)
			if _, err := l.protocol.Send(&wire.Session{TegaID: "c", Scope: "local"}); err != nil {
				t.Fatal(err)
			}
			ack, err := l.protocol.Receive([]byte("SESSIONACK srv\n{\"life\":\"a\",\"seq\":0}"))
			if err != nil {
				t.Fatal(err)
			}
			s.opened(l, ack.(*wire.SessionAck))
			return l
		}
		l := connected()
		listeners := s.listening(t)
		answers := s.asking(t)
		for _, text := range strings.Split(said, "\x00") {
			if payload, isPong := strings.CutPrefix(text, "pong "); isPong {
				s.ponged(l, payload)
			} else if err := s.received(l, []byte(text)); err != nil {
				s.lost(l, err)
				l = connected()
			}
		}
		for _, one := range listeners {
			s.mu.Lock()
			for there := true; there; {
				_, there, _ = one.next()
			}
			s.mu.Unlock()
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
		for _, count := range answers {
			if *count != 1 {
				t.Errorf("%d answers", *count)
			}
		}
	})
}

// wires are all messages of vectors.
func wires(vectors any) []string {
	var made []string
	switch one := vectors.(type) {
	case []any:
		for _, inner := range one {
			made = append(made, wires(inner)...)
		}
	case map[string]any:
		if text, there := one["wire"].(string); there {
			made = append(made, text)
		}
		made = append(made, wires(one["steps"])...)
	}
	return made
}

// listening lets somebody listen to all kinds of things.
func (s *session) listening(t *testing.T) []*listener {
	var made []*listener
	for text, regex := range map[string]bool{"r": false, "r.a": false, `r\..*`: true} {
		for _, changes := range []bool{true, false} {
			one, err := newSubscription(text, regex, Local)
			if err != nil {
				t.Fatal(err)
			}
			who := &listener{
				session: s, text: text, changes: changes, wake: make(chan struct{}, 1),
			}
			var since *wire.Since
			if regex {
				since = &wire.Since{}
			}
			s.subscriptions.add(who, one, since)
			made = append(made, who)
		}
	}
	return made
}

// asking lets somebody ask, and counts the answers to each.
func (s *session) asking(t *testing.T) []*int {
	s.functions.served["f"] = func(_ context.Context, call *Call) (any, error) {
		return call.Args, nil
	}
	transaction, err := s.transaction("t", []Op{PutEphemeral("r.here", 1), Get("r")})
	if err != nil {
		t.Fatal(err)
	}
	call := &asked{once: true, changes: true, message: &wire.Request{
		Type: "RPC", TegaID: "c", Path: "f", Body: []byte(`{"args":[],"kwargs":{}}`),
	}}
	var made []*int
	for _, one := range []*asked{transaction, call} {
		count := new(int)
		one.done = func([]byte, error) { *count++ }
		s.requests.add(one)
		s.transmit(one)
		made = append(made, count)
	}
	return made
}
