package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// FuzzParse reads whatever may come: it is refused with a reason, or is a message that is written
// and read again the same.
func FuzzParse(f *testing.F) {
	var messages []messageVector
	load(f, "messages.json", &messages)
	for _, one := range messages {
		f.Add([]byte(one.Wire))
	}
	var refused []struct{ Wire string }
	load(f, "refused.json", &refused)
	for _, one := range refused {
		f.Add([]byte(one.Wire))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		message, err := Parse(text)
		if err != nil {
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Message == "" ||
				refusal.Code != Malformed && refusal.Code != NotUnderstood {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := Parse(message.Text())
		if err != nil || !reflect.DeepEqual(again, message) {
			t.Fatalf("%q is %#v, written %q and read as %#v, %v",
				text, message, message.Text(), again, err)
		}
	})
}

// FuzzPath reads a path, or writes one of a key of any characters.
func FuzzPath(f *testing.F) {
	for _, one := range []string{
		"a.b", `routes."10.0.0.0/24".metric`, `"\ud83d\ude00"`, `"a\"b"."\u0020"`, "a..b", `"`,
		"\xff", "é\u2028", "_a", `"\\"`,
	} {
		f.Add(one)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if path, err := ParsePath(text); err == nil {
			again, err := ParsePath(path.String())
			if err != nil || !reflect.DeepEqual(again, path) {
				t.Fatalf("%q is %q, written %q: %q, %v", text, path, path.String(), again, err)
			}
		}
		written := Path{text}.String()
		path, err := ParsePath(written)
		if isKey := CheckKey(text) == nil; isKey != (err == nil) ||
			isKey && (len(path) != 1 || path[0] != text) {
			t.Fatalf("the key %q is written %q, which is %q, %v", text, written, path, err)
		}
	})
}

// FuzzCheckJSON lets nothing through that encoding/json does not read.
func FuzzCheckJSON(f *testing.F) {
	for _, one := range []string{
		`{"a":[1,-0.5e3,"\ud83d\ude00",null,true]}`, `{"a":1,"a":2}`, `"\ud800"`, `1e999`,
		`[[[[`, `1 2`, "\"\xff\"", `{"a":}`, `[1,]`,
	} {
		f.Add([]byte(one))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := CheckJSON(text); err == nil && !json.Valid(text) {
			t.Fatalf("%q is let through", text)
		}
	})
}

func TestWhatIsNestedTooDeepEndsNothing(t *testing.T) {
	for _, opening := range []string{"[", `{"a":`} {
		body := strings.Repeat(opening, 5_000_000)
		_, err := Parse(append([]byte("ERROR internal\n"), body...))
		if err == nil || !strings.Contains(err.Error(), "deep") {
			t.Errorf("%s: %v", opening, err)
		}
	}
	fits := bytes.Repeat([]byte("["), 5000)
	fits = append(fits, bytes.Repeat([]byte("]"), 5000)...)
	if err := CheckJSON(fits); err != nil {
		t.Error(err)
	}
}
