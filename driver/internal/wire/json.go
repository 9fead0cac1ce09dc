package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxDigits is how many digits an integer may have.
	maxDigits = 4300
	// maxNesting is how deep arrays and objects may stand in each other: encoding/json reads no
	// deeper, either.
	maxNesting = 10000
)

// CheckJSON refuses what tega refuses and encoding/json lets through: keys given twice in an
// object, halves of surrogate pairs, bytes that are not UTF-8, numbers that overflow, and more than
// one document; and what is nested so deep that it would end the program.
func CheckJSON(text []byte) error {
	if !utf8.Valid(text) {
		return malformed("bad JSON: not UTF-8")
	}
	if hasLoneSurrogate(text) {
		return malformed("bad JSON: half of a surrogate pair")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := checkValue(decoder, 0); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return malformed("bad JSON: something follows the document")
	}
	return nil
}

func checkValue(decoder *json.Decoder, depth int) error {
	if depth > maxNesting {
		return malformed("bad JSON: nested too deep")
	}
	token, err := decoder.Token()
	if err != nil {
		return badJSON(err)
	}
	switch token := token.(type) {
	case json.Number:
		return checkNumber(token.String())
	case json.Delim:
		if token == '{' {
			return checkObject(decoder, depth)
		}
		for decoder.More() {
			if err := checkValue(decoder, depth+1); err != nil {
				return err
			}
		}
		_, err = decoder.Token()
		return badJSON(err)
	}
	return nil
}

func checkObject(decoder *json.Decoder, depth int) error {
	keys := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return badJSON(err)
		}
		// The decoder lets nothing else through here.
		key, _ := token.(string)
		if keys[key] {
			return malformed("bad JSON: duplicate key %s in one object", shown(key))
		}
		keys[key] = true
		if err := checkValue(decoder, depth+1); err != nil {
			return err
		}
	}
	_, err := decoder.Token()
	return badJSON(err)
}

func checkNumber(text string) error {
	if !strings.ContainsAny(text, ".eE") {
		if len(strings.TrimPrefix(text, "-")) > maxDigits {
			return malformed("bad JSON: an integer of more than %d digits", maxDigits)
		}
		return nil
	}
	if number, err := strconv.ParseFloat(text, 64); err != nil || math.IsInf(number, 0) {
		return malformed("bad JSON: %s is not finite", shown(text))
	}
	return nil
}

func badJSON(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return malformed("bad JSON: it ends too early")
	}
	return malformed("bad JSON: %v", err)
}

// hasLoneSurrogate says whether a \ud800 stands without its other half.
func hasLoneSurrogate(text []byte) bool {
	high := false
	for place := 0; place < len(text); place++ {
		if text[place] != '\\' {
			if high {
				return true
			}
			continue
		}
		code, isCode := escaped(text[place:])
		low := isCode && code >= 0xdc00 && code < 0xe000
		if high != low {
			return true
		}
		high = isCode && code >= 0xd800 && code < 0xdc00
		if isCode {
			place += 5
		} else {
			place++
		}
	}
	return high
}

// escaped reads the \uXXXX that a text begins with, if it does.
func escaped(text []byte) (code uint64, ok bool) {
	if len(text) < 6 || text[1] != 'u' {
		return 0, false
	}
	code, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return code, err == nil
}
