package tega

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// replaced is what the encoder writes for what is not UTF-8. It writes this escape for no character
// that is really there.
var replaced = []byte(`\ufffd`)

// encode writes a value as JSON.
func encode(value any) (json.RawMessage, error) {
	text, err := marshal(value)
	if err != nil {
		made := refusal("malformed", "the value is not JSON: %v", err)
		made.cause = err
		return nil, made
	}
	// The encoder says nothing of a text that is not UTF-8, which would be another one at the
	// server. JSON inside the value may have the escape by itself.
	if hasReplaced(text) && hasBadText(reflect.ValueOf(value)) {
		return nil, refusal("malformed", "the value holds a text that is not UTF-8")
	}
	return text, nil
}

// marshal is json.Marshal without escapes for HTML.
func marshal(value any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), err
}

func hasReplaced(text []byte) bool {
	return bytes.Contains(bytes.ReplaceAll(text, []byte(`\\`), nil), replaced)
}

// hasBadText says whether a value that can be encoded holds a text that is not UTF-8.
func hasBadText(value reflect.Value) bool {
	if !value.IsValid() {
		return false
	}
	if value.CanInterface() {
		switch one := value.Interface().(type) {
		case json.RawMessage, *json.RawMessage:
			return false // it stays as it is
		case json.Marshaler:
			text, err := marshal(one)
			return err == nil && hasReplaced(text)
		case encoding.TextMarshaler:
			return isBadText(one)
		}
	}
	switch value.Kind() {
	case reflect.String:
		return !utf8.ValidString(value.String())
	case reflect.Interface, reflect.Pointer:
		return hasBadText(value.Elem())
	case reflect.Array, reflect.Slice:
		for place := range value.Len() {
			if hasBadText(value.Index(place)) {
				return true
			}
		}
	case reflect.Map:
		for entries := value.MapRange(); entries.Next(); {
			if hasBadText(entries.Key()) || hasBadText(entries.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for place := range value.NumField() {
			field := value.Type().Field(place)
			isSeen := field.IsExported() || field.Anonymous
			if isSeen && field.Tag.Get("json") != "-" && hasBadText(value.Field(place)) {
				return true
			}
		}
	}
	return false
}

// isBadText says whether a value is written as a text that is not UTF-8.
func isBadText(value encoding.TextMarshaler) bool {
	if one := reflect.ValueOf(value); one.Kind() == reflect.Pointer && one.IsNil() {
		return false // it is written as null
	}
	text, err := value.MarshalText()
	return err == nil && !utf8.Valid(text)
}

// decode reads JSON into a value. Numbers keep every digit: into an interface they are json.Number.
func decode(text []byte, into any, what string) error {
	if into == nil {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("tega: %s: %w", what, err)
	}
	return nil
}
