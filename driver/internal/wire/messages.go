package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// A Message is a command with its parameters, and for some a body: JSON, kept as the text that it
// is.
type Message interface {
	// Command is its first word.
	Command() string
	// Text is the message as it is sent.
	Text() []byte
}

// Since is where to go on: the last sequence number seen, and the life of the database that it is
// of; an empty one: whichever it is.
type Since struct {
	Seq  int64
	Life string
}

func (s Since) String() string {
	if s.Life == "" {
		return strconv.FormatInt(s.Seq, 10)
	}
	return strconv.FormatInt(s.Seq, 10) + "@" + s.Life
}

// Session is a client's first message: who it is.
type Session struct {
	TegaID string
	Scope  string
}

// SessionAck is the server's answer: its own id, the life of its database and its newest commit.
type SessionAck struct {
	TegaID string
	Life   string
	Seq    int64
}

// Subscribe asks for changes at, below and above a path, and for messages on that channel.
type Subscribe struct {
	// Path is dotted, or with Regex one pattern a level, split at \.
	Path  string
	Scope string
	Regex bool
	// Since asks for what has changed since then first; nil: for what is new.
	Since *Since
}

// Unsubscribe takes a subscription back; without a path all of them.
type Unsubscribe struct {
	Path  string
	Regex bool
}

// Publish tells every other subscriber of a channel. The body is {"message": any}.
type Publish struct {
	Channel string
	Body    json.RawMessage
}

// Published is a MESSAGE: what somebody has published. The body is {"message": any}.
type Published struct {
	Channel string
	TegaID  string
	Body    json.RawMessage
}

// Notify has the changes of one transaction: made, or from a client to be made. A JSON list.
type Notify struct {
	Body json.RawMessage
}

// Rollback rolls a root back to a version, or, negative, by so many.
type Rollback struct {
	Root   string
	Backto int64
}

// Request is to be answered by a Response of the same SeqNo.
type Request struct {
	SeqNo  uint64
	Type   string
	TegaID string
	Path   string
	Body   json.RawMessage
}

// Response is the answer: the bare result, or with IsError {"code", "message", ...}.
type Response struct {
	SeqNo   uint64
	Type    string
	TegaID  string
	IsError bool
	Body    json.RawMessage
}

// Told is an ERROR: what went wrong with something that has no answer. The body is {"message",
// ...}.
type Told struct {
	Code string
	Body json.RawMessage
}

// Peer is what servers tell each other.
type Peer struct {
	Kind string
	Body json.RawMessage
}

func (*Session) Command() string     { return "SESSION" }
func (*SessionAck) Command() string  { return "SESSIONACK" }
func (*Subscribe) Command() string   { return "SUBSCRIBE" }
func (*Unsubscribe) Command() string { return "UNSUBSCRIBE" }
func (*Publish) Command() string     { return "PUBLISH" }
func (*Published) Command() string   { return "MESSAGE" }
func (*Notify) Command() string      { return "NOTIFY" }
func (*Rollback) Command() string    { return "ROLLBACK" }
func (*Request) Command() string     { return "REQUEST" }
func (*Response) Command() string    { return "RESPONSE" }
func (*Told) Command() string        { return "ERROR" }
func (*Peer) Command() string        { return "PEER" }

func (m *Session) Text() []byte { return fmt.Appendf(nil, "SESSION %s %s", m.TegaID, m.Scope) }

func (m *SessionAck) Text() []byte {
	life, _ := json.Marshal(m.Life) // a string can always be written
	return fmt.Appendf(nil, "SESSIONACK %s\n{\"life\":%s,\"seq\":%d}", m.TegaID, life, m.Seq)
}

func (m *Subscribe) Text() []byte {
	text := "SUBSCRIBE " + channel(m.Path, m.Regex) + " " + m.Scope + " " + flag(m.Regex)
	if m.Since != nil {
		text += " " + m.Since.String()
	}
	return []byte(text)
}

func (m *Unsubscribe) Text() []byte {
	if m.Path == "" {
		return []byte("UNSUBSCRIBE")
	}
	return []byte("UNSUBSCRIBE " + channel(m.Path, m.Regex) + " " + flag(m.Regex))
}

func (m *Publish) Text() []byte { return withBody("PUBLISH "+Escaped(m.Channel), m.Body) }

func (m *Published) Text() []byte {
	return withBody("MESSAGE "+Escaped(m.Channel)+" "+m.TegaID, m.Body)
}

func (m *Notify) Text() []byte { return withBody("NOTIFY", m.Body) }

func (m *Rollback) Text() []byte {
	return fmt.Appendf(nil, "ROLLBACK %s %d", Escaped(Path{m.Root}.String()), m.Backto)
}

func (m *Request) Text() []byte {
	head := "REQUEST " + strconv.FormatUint(m.SeqNo, 10) + " " + m.Type + " " + m.TegaID + " "
	return withBody(head+Escaped(m.Path), m.Body)
}

func (m *Response) Text() []byte {
	head := "RESPONSE " + strconv.FormatUint(m.SeqNo, 10) + " " + m.Type + " " + m.TegaID
	if m.IsError {
		head += " ERROR"
	}
	return withBody(head, m.Body)
}

func (m *Told) Text() []byte { return withBody("ERROR "+m.Code, m.Body) }

func (m *Peer) Text() []byte { return withBody("PEER "+m.Kind, m.Body) }

func withBody(head string, body []byte) []byte {
	text := make([]byte, 0, len(head)+1+len(body))
	text = append(text, head...)
	text = append(text, '\n')
	return append(text, body...)
}

func channel(path string, regex bool) string {
	if regex {
		return EscapedPattern(path)
	}
	return Escaped(path)
}

func flag(regex bool) string {
	if regex {
		return "True"
	}
	return "False"
}
