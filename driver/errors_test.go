package tega

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// listing has Python print its table: of each code the status, and the code that it is a case of.
const listing = `
import json
from tega.errors import BY_CODE, TegaError
print(json.dumps({
    code: [cls.status, "" if TegaError in (cls, cls.__mro__[1]) else cls.__mro__[1].code]
    for code, cls in BY_CODE.items()
}))`

func TestTheTableOfCodesIsThatOfTheServer(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(root, ".venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Skipf("the server of this clone is not installed (%v): run scripts/test once", err)
	}
	command := exec.Command(python, "-c", listing)
	command.Dir = root
	text, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var theirs map[string][]any
	if err := json.Unmarshal(text, &theirs); err != nil {
		t.Fatal(err)
	}
	for name, has := range theirs {
		if ours, there := codes[name]; !there ||
			fmt.Sprint([]any{ours.status, ours.parent}) != fmt.Sprint(has) {
			t.Errorf("%s: %v, not %v", name, ours, has)
		}
	}
	for name := range codes {
		// The protocol alone has taken_over.
		if _, there := theirs[name]; !there && name != "taken_over" {
			t.Errorf("the server has no %s", name)
		}
	}
}

func TestEveryCodeHasItsError(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, found := range regexp.MustCompile(`= sentinel\("(\w+)"\)`).FindAllSubmatch(source, -1) {
		named[string(found[1])] = true
	}
	for name, has := range codes {
		if !named[name] {
			t.Errorf("no error for %s", name)
		}
		made := fmt.Errorf("more: %w", refusal(name, "why"))
		for parent := name; parent != ""; parent = codes[parent].parent {
			if !errors.Is(made, sentinel(parent)) {
				t.Errorf("%s is no %s", name, parent)
			}
		}
		if name != "internal" && has.parent != "internal" && errors.Is(made, ErrInternal) {
			t.Errorf("%s is internal", name)
		}
	}
	if len(named) != len(codes) {
		t.Errorf("%d errors for %d codes", len(named), len(codes))
	}
}

func TestARefusalIsReadWhateverItHolds(t *testing.T) {
	t.Parallel()
	one := told([]byte(`{"code":"collision","message":"m","path":"a.b","expected":7,"found":null}`))
	if one.Code != "collision" || one.Status != 409 || one.Path != "a.b" ||
		string(one.Details["found"]) != "null" {
		t.Errorf("%+v", one)
	}
	for _, odd := range []string{
		`7`, `null`, `{}`, `{"code":7,"message":[]}`, `{"code":"new","path":{}}`, `not JSON`,
	} {
		if made := told([]byte(odd)); made.Error() == "" || made.Status != 0 {
			t.Errorf("%s: %+v", odd, made)
		}
	}
}
