package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// load reads a file of tests/vectors; numbers keep every digit.
func load(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "tests", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	decode(t, text, into)
}

func decode(t testing.TB, text []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// meaning is a message as the vectors have it.
func meaning(t *testing.T, message Message) map[string]any {
	t.Helper()
	means := map[string]any{"command": message.Command()}
	body := func(raw json.RawMessage) {
		var value any
		decode(t, raw, &value)
		means["body"] = value
	}
	number := func(value any) json.Number { return json.Number(fmt.Sprint(value)) }
	switch m := message.(type) {
	case *Session:
		means["tega_id"], means["scope"] = m.TegaID, m.Scope
	case *SessionAck:
		means["tega_id"], means["life"], means["seq"] = m.TegaID, m.Life, number(m.Seq)
	case *Subscribe:
		means["path"], means["scope"], means["regex"] = m.Path, m.Scope, m.Regex
		means["since"] = nil
		if m.Since != nil {
			means["since"] = m.Since.String()
		}
	case *Unsubscribe:
		means["path"], means["regex"] = any(m.Path), m.Regex
		if m.Path == "" {
			means["path"] = nil
		}
	case *Publish:
		means["channel"] = m.Channel
		body(m.Body)
	case *Published:
		means["channel"], means["tega_id"] = m.Channel, m.TegaID
		body(m.Body)
	case *Notify:
		body(m.Body)
	case *Rollback:
		means["root"], means["backto"] = m.Root, number(m.Backto)
	case *Request:
		means["seq_no"], means["type"] = number(m.SeqNo), m.Type
		means["tega_id"], means["path"] = m.TegaID, m.Path
		body(m.Body)
	case *Response:
		means["seq_no"], means["type"] = number(m.SeqNo), m.Type
		means["tega_id"], means["error"] = m.TegaID, m.IsError
		body(m.Body)
	case *Told:
		means["code"] = m.Code
		body(m.Body)
	case *Peer:
		means["kind"] = m.Kind
		body(m.Body)
	default:
		t.Fatalf("%T", message)
	}
	return means
}

// made is a message from what it means.
func made(t *testing.T, means map[string]any) Message {
	t.Helper()
	text := func(name string) string { value, _ := means[name].(string); return value }
	is := func(name string) bool { value, _ := means[name].(bool); return value }
	number := func(name string) int64 {
		value, err := strconv.ParseInt(fmt.Sprint(means[name]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	body := func() json.RawMessage {
		made, err := json.Marshal(means["body"])
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	switch command := text("command"); command {
	case "SESSION":
		return &Session{text("tega_id"), text("scope")}
	case "SESSIONACK":
		return &SessionAck{text("tega_id"), text("life"), number("seq")}
	case "SUBSCRIBE":
		message := &Subscribe{Path: text("path"), Scope: text("scope"), Regex: is("regex")}
		if since := text("since"); since != "" {
			digits, life, _ := strings.Cut(since, "@")
			seq, err := strconv.ParseInt(digits, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			message.Since = &Since{seq, life}
		}
		return message
	case "UNSUBSCRIBE":
		return &Unsubscribe{text("path"), is("regex")}
	case "PUBLISH":
		return &Publish{text("channel"), body()}
	case "MESSAGE":
		return &Published{text("channel"), text("tega_id"), body()}
	case "NOTIFY":
		return &Notify{body()}
	case "ROLLBACK":
		return &Rollback{text("root"), number("backto")}
	case "REQUEST":
		seqNo := uint64(number("seq_no"))
		return &Request{seqNo, text("type"), text("tega_id"), text("path"), body()}
	case "RESPONSE":
		seqNo := uint64(number("seq_no"))
		return &Response{seqNo, text("type"), text("tega_id"), is("error"), body()}
	case "ERROR":
		return &Told{text("code"), body()}
	case "PEER":
		return &Peer{text("kind"), body()}
	default:
		t.Fatalf("unknown command %s", command)
		return nil
	}
}

type messageVector struct {
	Name, Wire, Written string
	Means               map[string]any
}

func TestMessagesMeanWhatTheySay(t *testing.T) {
	var vectors []messageVector
	load(t, "messages.json", &vectors)
	commands := map[string]bool{}
	for _, one := range vectors {
		t.Run(one.Name, func(t *testing.T) {
			message, err := Parse([]byte(one.Wire))
			if err != nil {
				t.Fatal(err)
			}
			commands[message.Command()] = true
			if got := meaning(t, message); !reflect.DeepEqual(got, one.Means) {
				t.Errorf("it means %v, not %v", got, one.Means)
			}
			written := one.Written
			if written == "" {
				written = one.Wire
			}
			head, body, _ := strings.Cut(string(made(t, one.Means).Text()), "\n")
			wantedHead, wantedBody, _ := strings.Cut(written, "\n")
			if head != wantedHead || (body == "") != (wantedBody == "") {
				t.Errorf("it is written %q, not %q", head, wantedHead)
			}
			if body != "" {
				var got, wanted any
				decode(t, []byte(body), &got)
				decode(t, []byte(wantedBody), &wanted)
				if !reflect.DeepEqual(got, wanted) {
					t.Errorf("its body is %s, not %s", body, wantedBody)
				}
			}
		})
	}
	if len(commands) != len(readers) {
		t.Errorf("the vectors have %d of %d commands", len(commands), len(readers))
	}
}

// ends are both ends of a connection, each fed with what the other one says.
type ends map[Role]*Connection

func (e ends) say(from Role, text string) error {
	message, err := Parse([]byte(text))
	if err != nil {
		return err
	}
	sent, err := e[from].Send(message)
	if err != nil {
		return err
	}
	_, err = e[from.other()].Receive(sent)
	return err
}

func newEnds(t *testing.T, state State) ends {
	t.Helper()
	made := ends{Client: NewConnection(Client), Server: NewConnection(Server)}
	if state != New {
		if err := made.say(Client, "SESSION cli-1 local"); err != nil {
			t.Fatal(err)
		}
	}
	if state == Open {
		if err := made.say(Server, "SESSIONACK global\n{\"life\":\"9c41\",\"seq\":0}"); err != nil {
			t.Fatal(err)
		}
	}
	return made
}

// refuses checks that what an end says is refused by the other one, that it does not say it by
// itself, and that nothing comes of it.
func (e ends) refuses(t *testing.T, from Role, text, code string) {
	t.Helper()
	before := [2]State{e[Client].State(), e[Server].State()}
	_, err := e[from.other()].Receive([]byte(text))
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != code || refusal.Message == "" {
		t.Errorf("refused with %v, not with %s", err, code)
	}
	if message, err := Parse([]byte(text)); err == nil {
		if _, err := e[from].Send(message); err == nil {
			t.Errorf("the %s sends it", from)
		}
	}
	if after := [2]State{e[Client].State(), e[Server].State()}; after != before {
		t.Errorf("from %v to %v", before, after)
	}
}

func TestWhatIsWrongIsRefused(t *testing.T) {
	var vectors []struct {
		Why, Wire, Code string
		From            Role
		State           State
	}
	load(t, "refused.json", &vectors)
	for _, one := range vectors {
		t.Run(fmt.Sprintf("%s, %s, %s", one.Why, one.From, one.State), func(t *testing.T) {
			newEnds(t, one.State).refuses(t, one.From, one.Wire, one.Code)
		})
	}
}

func TestSequences(t *testing.T) {
	var vectors []struct {
		Name  string
		Steps []struct {
			From          Role
			Wire, Refused string
			State         State
		}
	}
	load(t, "sequences.json", &vectors)
	for _, one := range vectors {
		t.Run(one.Name, func(t *testing.T) {
			ends := newEnds(t, New)
			for _, step := range one.Steps {
				if step.Refused != "" {
					ends.refuses(t, step.From, step.Wire, step.Refused)
					continue
				}
				if err := ends.say(step.From, step.Wire); err != nil {
					t.Fatalf("%s: %v", step.Wire, err)
				}
				if ends[Client].State() != step.State || ends[Server].State() != step.State {
					t.Fatalf("%s: %s and %s, not %s", step.Wire, ends[Client].State(),
						ends[Server].State(), step.State)
				}
			}
		})
	}
}
