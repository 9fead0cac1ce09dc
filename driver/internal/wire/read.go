package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// maxNumber is how many digits a sequence number may have.
const maxNumber = 18

// reader is how one command is read.
type reader struct {
	least, most int // parameters
	hasBody     bool
	usage       string
	read        func(words []string, body []byte) (Message, error)
}

// readers has every command.
var readers = map[string]reader{
	"SESSION":    {2, 2, false, "a tega id and a scope", readSession},
	"SESSIONACK": {1, 1, true, "a tega id", readSessionAck},
	"SUBSCRIBE": {
		2, 4, false, "a path, a scope, and may take a regex flag and where to go on from",
		readSubscribe,
	},
	"UNSUBSCRIBE": {0, 2, false, "nothing, or a path and a regex flag", readUnsubscribe},
	"PUBLISH":     {1, 1, true, "a channel", readPublish},
	"MESSAGE":     {2, 2, true, "a channel and a tega id", readPublished},
	"NOTIFY":      {0, 0, true, "no parameters", readNotify},
	"ROLLBACK":    {2, 2, false, "a root and what to roll it back to", readRollback},
	"REQUEST":     {4, 4, true, "a number, a type, a tega id and a path", readRequest},
	"RESPONSE":    {3, 4, true, "a number, a type, a tega id, and may take ERROR", readResponse},
	"ERROR":       {1, 1, true, "a code", readTold},
	"PEER":        {1, 1, true, "a kind", readPeer},
}

var (
	scopes = []string{"local", "global"}
	flags  = []string{"True", "False"}
	types  = []string{"RPC", "TX", "SYNC", "REFER"}
	kinds  = []string{
		"above", "applied", "commit", "functions", "left", "message", "overlay", "root",
	}
)

// Parse reads a message: the text of one WebSocket frame. The error is an *Error.
func Parse(text []byte) (Message, error) {
	line, body, hasBody := bytes.Cut(text, []byte("\n"))
	head := strings.TrimSuffix(string(line), "\r")
	words := strings.Split(head, " ")
	one, known := readers[words[0]]
	switch {
	case !known:
		return nil, notUnderstood("unknown message %s", shown(words[0]))
	case len(words)-1 < one.least || len(words)-1 > one.most:
		return nil, malformed("%s: %s takes %s", shown(head), words[0], one.usage)
	case slices.Contains(words, ""):
		return nil, malformed("%s: parameters are separated by one space", shown(head))
	case one.hasBody && !hasBody:
		return nil, malformed("%s: a JSON body must follow on the next line", shown(head))
	case hasBody && !one.hasBody:
		return nil, malformed("%s: %s takes no body", shown(head), words[0])
	}
	return one.read(words, body)
}

func readSession(words []string, _ []byte) (Message, error) {
	if err := CheckTegaID(words[1]); err != nil {
		return nil, err
	}
	return &Session{words[1], words[2]}, choice(words[2], "scope", scopes)
}

func readSessionAck(words []string, body []byte) (Message, error) {
	var given struct {
		Life *string
		Seq  *int64
	}
	if err := readObject(body, &given); err != nil {
		return nil, err
	}
	if given.Life == nil || given.Seq == nil {
		return nil, malformed(`SESSIONACK: the body is {"life": text, "seq": number}`)
	}
	return &SessionAck{words[1], *given.Life, *given.Seq}, CheckTegaID(words[1])
}

func readSubscribe(words []string, _ []byte) (Message, error) {
	regex, err := readFlag(words, 3)
	if err != nil {
		return nil, err
	}
	path, err := readChannel(words[1], regex)
	if err != nil {
		return nil, err
	}
	message := &Subscribe{Path: path, Scope: words[2], Regex: regex}
	if len(words) > 4 {
		if message.Since, err = readSince(words[4]); err != nil {
			return nil, err
		}
	}
	return message, choice(words[2], "scope", scopes)
}

func readSince(word string) (*Since, error) {
	digits, life, hasLife := strings.Cut(word, "@")
	if hasLife && life == "" {
		return nil, malformed("from %s: a sequence number, or one and a life: 17@9af3", shown(word))
	}
	seq, err := number(digits, "from")
	return &Since{int64(seq), life}, err
}

func readUnsubscribe(words []string, _ []byte) (Message, error) {
	if len(words) == 1 {
		return &Unsubscribe{}, nil
	}
	regex, err := readFlag(words, 2)
	if err != nil {
		return nil, err
	}
	path, err := readChannel(words[1], regex)
	return &Unsubscribe{path, regex}, err
}

func readPublish(words []string, body []byte) (Message, error) {
	path, err := readChannel(words[1], false)
	if err != nil {
		return nil, err
	}
	return &Publish{path, body}, checkMessage(body)
}

func readPublished(words []string, body []byte) (Message, error) {
	path, err := readChannel(words[1], false)
	if err != nil {
		return nil, err
	}
	if err := CheckTegaID(words[2]); err != nil {
		return nil, err
	}
	return &Published{path, words[2], body}, checkMessage(body)
}

// checkMessage refuses what is not {"message": any}.
func checkMessage(body []byte) error {
	var given map[string]json.RawMessage
	if err := readObject(body, &given); err != nil {
		return err
	}
	if _, there := given["message"]; !there || len(given) != 1 {
		return malformed(`the body is {"message": any JSON value}`)
	}
	return nil
}

func readNotify(_ []string, body []byte) (Message, error) { return &Notify{body}, nil }

func readRollback(words []string, _ []byte) (Message, error) {
	root, err := ParsePath(words[1])
	if err != nil {
		return nil, err
	}
	if len(root) != 1 {
		return nil, malformed("ROLLBACK %s: it takes the name of a root", shown(words[1]))
	}
	digits, negative := strings.CutPrefix(words[2], "-")
	back, err := number(digits, "backto")
	backto := int64(back)
	if negative {
		backto = -backto
	}
	return &Rollback{root[0], backto}, err
}

func readRequest(words []string, body []byte) (Message, error) {
	seqNo, err := readHead(words)
	return &Request{seqNo, words[2], words[3], words[4], body}, err
}

func readResponse(words []string, body []byte) (Message, error) {
	seqNo, err := readHead(words)
	if err == nil && len(words) > 4 {
		err = choice(words[4], "the last word of a RESPONSE", []string{"ERROR"})
	}
	return &Response{seqNo, words[2], words[3], len(words) > 4, body}, err
}

// readHead reads number, type and tega id of a request or its answer.
func readHead(words []string) (uint64, error) {
	seqNo, err := number(words[1], "seq_no")
	if err == nil {
		err = choice(words[2], "type", types)
	}
	if err == nil {
		err = CheckTegaID(words[3])
	}
	return seqNo, err
}

func readTold(words []string, body []byte) (Message, error) {
	var given map[string]json.RawMessage
	return &Told{words[1], body}, readObject(body, &given)
}

func readPeer(words []string, body []byte) (Message, error) {
	return &Peer{words[1], body}, choice(words[1], "kind", kinds)
}

// readObject reads a body that is to be an object.
func readObject(body []byte, into any) error {
	if err := CheckJSON(body); err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); trimmed[0] != '{' {
		return malformed("the body is a JSON object")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return malformed("the body: %v", err)
	}
	return nil
}

func readFlag(words []string, place int) (bool, error) {
	if len(words) <= place {
		return false, nil
	}
	return words[place] == "True", choice(words[place], "regex flag", flags)
}

// readChannel checks a path or pattern, and gives a path as it is best written.
func readChannel(word string, regex bool) (string, error) {
	if regex {
		_, err := SplitPattern(word)
		return word, err
	}
	path, err := ParsePath(word)
	return path.String(), err
}

func number(word, what string) (uint64, error) {
	if word == "" || len(word) > maxNumber || strings.Trim(word, "0123456789") != "" {
		return 0, malformed("%s %s is not a number", what, shown(word))
	}
	return strconv.ParseUint(word, 10, 64)
}

func choice(word, what string, choices []string) error {
	if !slices.Contains(choices, word) {
		return malformed("%s %s: it is %s", what, shown(word), strings.Join(choices, " or "))
	}
	return nil
}
