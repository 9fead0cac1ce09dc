package tega

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// parts is a text, or its parts: each one a text, or a text so many times.
type parts []struct {
	text  string
	times int
}

func (p *parts) UnmarshalJSON(text []byte) error {
	var given []json.RawMessage
	if text[0] == '"' {
		given = []json.RawMessage{text}
	} else if err := json.Unmarshal(text, &given); err != nil {
		return err
	}
	*p = make(parts, len(given))
	for place, one := range given {
		part := &(*p)[place]
		part.times = 1
		into := []any{&part.text, &part.times}
		if one[0] == '"' {
			one = fmt.Appendf(nil, "[%s]", one)
		}
		if err := json.Unmarshal(one, &into); err != nil {
			return err
		}
	}
	return nil
}

func (p parts) whole() string {
	var made strings.Builder
	for _, part := range p {
		made.WriteString(strings.Repeat(part.text, part.times))
	}
	return made.String()
}

func (p parts) octets(t *testing.T) []byte {
	t.Helper()
	made, err := hex.DecodeString(p.whole())
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// event is something that is read: a text, or a ping, pong or close with its payload.
type event struct{ kind, data string }

type readVector struct {
	Name   string
	Limit  int64
	Bytes  parts
	Events []map[string]parts
	Close  int
}

func (v readVector) events(t *testing.T) []event {
	t.Helper()
	var made []event
	for _, one := range v.Events {
		for kind, data := range one {
			if kind == "text" {
				made = append(made, event{kind, data.whole()})
			} else {
				made = append(made, event{kind, string(data.octets(t))})
			}
		}
	}
	return made
}

type writeVector struct {
	Name           string
	Opcode         int
	Last           bool
	Payload, Bytes parts
}

// frameVectors are those of frames.json.
func frameVectors(t *testing.T) (reads []readVector, writes []writeVector) {
	t.Helper()
	text, err := os.ReadFile("../tests/vectors/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var given struct {
		Reads  []readVector
		Writes []writeVector
	}
	if err := json.Unmarshal(text, &given); err != nil {
		t.Fatal(err)
	}
	return given.Reads, given.Writes
}

// role is one end of a WebSocket: as the server has it, or as this driver does.
type role string

const (
	asServer role = "server"
	asClient role = "client"
)

// opened gives a WebSocket of a role, and the bare connection at its other end.
func opened(t *testing.T, as role) (*websocket.Conn, net.Conn) {
	t.Helper()
	upgraded := make(chan *websocket.Conn, 1)
	accept := func(w http.ResponseWriter, r *http.Request) {
		socket, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
		}
		upgraded <- socket
	}
	server := httptest.NewServer(http.HandlerFunc(accept))
	t.Cleanup(server.Close)
	dialer := websocket.Dialer{WriteBufferSize: 16 << 10}
	dialed, _, err := dialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	one, other := <-upgraded, dialed
	if as == asClient {
		one, other = other, one
	}
	t.Cleanup(func() {
		one.Close()
		other.Close()
	})
	return one, other.NetConn()
}

// mirrored are frames as the other end would send them: those that are masked are not, and the
// other way round.
func mirrored(given []byte) []byte {
	var made []byte
	for len(given) >= 2 {
		masked, size, head := given[1]&0x80 != 0, uint64(given[1]&0x7f), 2
		if more := map[uint64]int{126: 2, 127: 8}[size]; len(given) >= head+more {
			long := append(make([]byte, 8-more), given[head:head+more]...)
			if more > 0 {
				size = binary.BigEndian.Uint64(long)
			}
			head += more
		}
		given[1] ^= 0x80
		made = append(made, given[:head]...)
		given = given[head:]
		if !masked {
			made = append(made, 0, 0, 0, 0)
		} else if len(given) >= 4 {
			mask := given[:4]
			given = given[4:]
			for place := range given[:min(size, uint64(len(given)))] {
				given[place] ^= mask[place%4]
			}
		}
		size = min(size, uint64(len(given)))
		made = append(made, given[:size]...)
		given = given[size:]
	}
	return append(made, given...)
}

// readAll reads of a WebSocket what its other end sends before it sends nothing more: what that is,
// and the code that the connection is ended with for what is wrong; 0 where nothing is.
func readAll(
	t *testing.T, socket *websocket.Conn, bare net.Conn, sent []byte, size int,
) (events []event, code int) {
	t.Helper()
	socket.SetPingHandler(func(payload string) error {
		events = append(events, event{"ping", payload})
		return nil
	})
	socket.SetPongHandler(func(payload string) error {
		events = append(events, event{"pong", payload})
		return nil
	})
	answered := make(chan []byte, 1)
	go func() {
		for start := 0; start < len(sent); start += size {
			if _, err := bare.Write(sent[start:min(start+size, len(sent))]); err != nil {
				break // it has hung up
			}
		}
		_ = bare.(*net.TCPConn).CloseWrite()
		text, _ := io.ReadAll(bare)
		answered <- text
	}()
	for {
		text, err := receive(socket)
		if err == nil {
			events = append(events, event{"text", string(text)})
			continue
		}
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
			payload := websocket.FormatCloseMessage(closed.Code, closed.Text)
			events = append(events, event{"close", string(payload)})
		}
		break
	}
	_ = socket.NetConn().(*net.TCPConn).CloseWrite()
	answer := <-answered
	if len(answer) > 1 && answer[1]&0x80 != 0 {
		answer = mirrored(answer)
	}
	if len(answer) >= 4 && answer[0] == 0x80|websocket.CloseMessage &&
		(len(events) == 0 || events[len(events)-1].kind != "close") {
		code = int(binary.BigEndian.Uint16(answer[2:]))
	}
	return events, code
}

// notHere has the vectors that say nothing of an end, and why.
var notHere = map[role]map[string]string{
	asServer: {
		"a fragment counts for 64 bytes at least": countsBytes,
		"the head alone of 1 GiB":                 "the library reads the mask first",
	},
	asClient: {"a fragment counts for 64 bytes at least": countsBytes},
}

const countsBytes = "tega's server holds fragments until the last one has come, and bounds what " +
	"that costs; the library puts them together as they come, and counts their bytes"

func TestFramesAreRead(t *testing.T) {
	t.Parallel()
	reads, _ := frameVectors(t)
	for _, one := range reads {
		for _, as := range []role{asServer, asClient} {
			for _, size := range []int{1, 7, 1 << 20} {
				if size < 1<<20 && one.Limit > 1000 {
					continue // it would say nothing new, and take long
				}
				t.Run(fmt.Sprintf("%s, by a %s, in chunks of %d", one.Name, as, size),
					func(t *testing.T) {
						if why := notHere[as][one.Name]; why != "" {
							t.Skip(why)
						}
						sent := one.Bytes.octets(t)
						if as == asClient {
							sent = mirrored(sent)
						}
						socket, bare := opened(t, as)
						socket.SetReadLimit(one.Limit)
						events, code := readAll(t, socket, bare, sent, size)
						if want := one.events(t); !reflect.DeepEqual(events, want) {
							t.Errorf("%.200q is read, not %.200q", events, want)
						}
						if code != one.Close {
							t.Errorf("it ends with %d, not %d", code, one.Close)
						}
					})
			}
		}
	}
}

// TestFramesOfTheServerAreRead gives those of one message together.
func TestFramesOfTheServerAreRead(t *testing.T) {
	t.Parallel()
	_, writes := frameVectors(t)
	kinds := map[int]string{0: "text", 1: "text", 8: "close", 9: "ping", 10: "pong"}
	for _, one := range writes {
		t.Run(one.Name, func(t *testing.T) {
			want := string(one.Payload.octets(t))
			sent := one.Bytes.octets(t)
			if one.Opcode == 0 {
				sent = append([]byte("\x01\x01<"), sent...)
				want = "<" + want
			}
			if !one.Last {
				sent = append(sent, "\x80\x01>"...)
				want += ">"
			}
			socket, bare := opened(t, asClient)
			events, code := readAll(t, socket, bare, sent, 1<<20)
			if len(events) != 1 || events[0] != (event{kinds[one.Opcode], want}) || code != 0 {
				t.Errorf("%.200q, %d", events, code)
			}
		})
	}
}

// TestFramesAreWritten writes whole messages: a server as they stand in the vectors, a driver
// masked, and large ones in fragments, which the library alone makes.
func TestFramesAreWritten(t *testing.T) {
	t.Parallel()
	_, writes := frameVectors(t)
	for _, one := range writes {
		if one.Opcode == 0 || !one.Last {
			continue
		}
		for _, as := range []role{asServer, asClient} {
			t.Run(one.Name+", by a "+string(as), func(t *testing.T) {
				socket, bare := opened(t, as)
				payload := one.Payload.octets(t)
				written := make(chan error, 1)
				go func() {
					written <- (&link{socket: socket}).writeOne(frame{one.Opcode, payload})
					_ = socket.NetConn().(*net.TCPConn).CloseWrite()
				}()
				found, err := io.ReadAll(bare)
				if err != nil {
					t.Fatal(err)
				}
				if err := <-written; err != nil {
					t.Fatal(err)
				}
				if as == asServer {
					if !bytes.Equal(found, one.Bytes.octets(t)) {
						t.Errorf("it is written %.200x", found)
					}
					return
				}
				opcode, got := joined(t, mirrored(found))
				if opcode != one.Opcode || !bytes.Equal(got, payload) {
					t.Errorf("it is written %.200x", found)
				}
			})
		}
	}
}

// joined is the message that frames make, which are not masked.
func joined(t *testing.T, frames []byte) (opcode int, payload []byte) {
	t.Helper()
	opcode = int(frames[0] & 0xf)
	from := bufio.NewReader(bytes.NewReader(frames))
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(from, head); err != nil {
			t.Fatal("the last frame is missing: ", err)
		}
		size := uint64(head[1])
		if more := map[uint64]int{126: 2, 127: 8}[size]; more > 0 {
			long := make([]byte, 8)
			if _, err := io.ReadFull(from, long[8-more:]); err != nil {
				t.Fatal(err)
			}
			size = binary.BigEndian.Uint64(long)
		}
		part := make([]byte, size)
		if _, err := io.ReadFull(from, part); err != nil {
			t.Fatal(err)
		}
		payload = append(payload, part...)
		if head[0]&0x80 != 0 {
			if from.Buffered() > 0 {
				t.Error("more follows the last frame")
			}
			return opcode, payload
		}
	}
}
