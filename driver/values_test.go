package tega

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

type named string

func (n named) MarshalText() ([]byte, error) { return []byte(n), nil }

type spoken struct{ text string }

func (s spoken) MarshalJSON() ([]byte, error) { return json.Marshal(s.text) }

type inner struct{ Text any }

type outer struct {
	inner
	Next   *outer
	Named  named
	hidden string
	Left   string `json:"-"`
}

func TestTextsAreUTF8(t *testing.T) {
	const bad = "a\xffb"
	escape := json.RawMessage(`{"text":"\ufffd","more":"\\ufffd"}`)
	for _, one := range []any{
		bad, named(bad), &outer{Named: bad}, spoken{bad}, []any{1, bad}, [1]string{bad},
		map[string]int{bad: 1}, map[string]any{"a": []string{bad}}, map[named]int{bad: 1},
		outer{inner: inner{bad}}, outer{Next: &outer{inner: inner{map[string]any{"x": bad}}}},
		[]any{escape, bad}, &[]any{spoken{bad}},
	} {
		text, err := encode(one)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%#v is written as %s, %v", one, text, err)
		}
	}
	for _, one := range []any{
		"\ufffd", `\ufffd`, "日本\u2028<>&", escape, &escape, []any{escape, "\ufffd"},
		map[string]any{"a": &escape}, outer{inner: inner{escape}}, outer{hidden: bad, Left: bad},
		outer{inner: inner{[]any{escape, (*named)(nil), (*spoken)(nil), nil}}},
	} {
		text, err := encode(one)
		if err != nil || !json.Valid(text) {
			t.Errorf("%#v is written as %s, %v", one, text, err)
		}
	}
}
