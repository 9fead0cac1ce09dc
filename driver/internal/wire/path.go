package wire

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxKey is how many bytes of UTF-8 a key, or a tega id, may have.
const maxKey = 255

var tegaID = regexp.MustCompile(`^[A-Za-z0-9.-][A-Za-z0-9._-]*$`)

// Path is a path: keys from the root down.
type Path []string

// ParsePath reads a dotted path, such as routes."10.0.0.0/24".metric.
func ParsePath(dotted string) (Path, error) {
	var path Path
	for rest, more := dotted, true; more; {
		key, after, err := firstKey(rest)
		if err == nil {
			err = CheckKey(key)
		}
		if err != nil {
			return nil, malformed("malformed path %s: %v", shown(dotted), err)
		}
		path = append(path, key)
		if more = after != ""; more {
			// It is a dot.
			rest = after[1:]
		}
	}
	return path, nil
}

// firstKey takes the first key off a dotted path; what is left begins with a dot, or is empty.
func firstKey(dotted string) (key, after string, err error) {
	if !strings.HasPrefix(dotted, `"`) {
		end := strings.IndexByte(dotted, '.')
		if end < 0 {
			end = len(dotted)
		}
		if key = dotted[:end]; strings.Contains(key, `"`) {
			return "", "", malformed("the key %s holds a quote: quote it as JSON", shown(key))
		}
		return key, dotted[end:], nil
	}
	end := 1
	for end < len(dotted) && dotted[end] != '"' {
		if dotted[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(dotted) {
		return "", "", malformed("a quoted key has no end")
	}
	quoted := []byte(dotted[:end+1])
	if err := CheckJSON(quoted); err != nil {
		return "", "", err
	}
	if err := json.Unmarshal(quoted, &key); err != nil {
		return "", "", malformed("bad quoted key: %v", err)
	}
	if after = dotted[end+1:]; after != "" && after[0] != '.' {
		return "", "", malformed("a dot must follow the quoted key %s", quoted)
	}
	return key, after, nil
}

// CheckKey refuses what cannot be a key: empty, too long, tega's own, or not text.
func CheckKey(key string) error {
	switch {
	case key == "":
		return malformed("empty key: a key has at least one character")
	case !utf8.ValidString(key):
		return malformed("key %q is not UTF-8", key)
	case len(key) > maxKey:
		return malformed(
			"key too long: %s has %d bytes, the limit is %d", shown(key), len(key), maxKey,
		)
	case key[0] == '_':
		return malformed("reserved key %q: names that start with '_' are tega's own", key)
	}
	return nil
}

// String writes a path with dots, quoting the keys that need it.
func (p Path) String() string {
	var made strings.Builder
	for number, key := range p {
		if number > 0 {
			made.WriteByte('.')
		}
		if isPlain(key) {
			made.WriteString(key)
		} else {
			quote(&made, key)
		}
	}
	return made.String()
}

// Has says whether another path is this one, or stands below it.
func (p Path) Has(other Path) bool {
	if len(p) > len(other) {
		return false
	}
	for depth, key := range p {
		if other[depth] != key {
			return false
		}
	}
	return true
}

func isPlain(key string) bool {
	for _, char := range key {
		if char == '.' || char == '"' || char == ' ' || !unicode.IsPrint(char) {
			return false
		}
	}
	return true
}

func quote(made *strings.Builder, key string) {
	made.WriteByte('"')
	for place, char := range key {
		switch {
		case char == utf8.RuneError && !strings.HasPrefix(key[place:], string(char)):
			// Not UTF-8: it stays, and is refused, where it would become another key.
			made.WriteByte(key[place])
		case char == '"' || char == '\\':
			made.WriteByte('\\')
			made.WriteRune(char)
		case unicode.IsPrint(char):
			made.WriteRune(char)
		case char == '\n':
			made.WriteString(`\n`)
		case char == '\r':
			made.WriteString(`\r`)
		case char == '\t':
			made.WriteString(`\t`)
		case char == '\b':
			made.WriteString(`\b`)
		case char == '\f':
			made.WriteString(`\f`)
		case char > 0xffff:
			char -= 0x10000
			fmt.Fprintf(made, `\u%04x\u%04x`, 0xd800+char>>10, 0xdc00+char&0x3ff)
		default:
			fmt.Fprintf(made, `\u%04x`, char)
		}
	}
	made.WriteByte('"')
}

// CheckTegaID refuses what cannot be a tega id.
func CheckTegaID(id string) error {
	if len(id) > maxKey || !tegaID.MatchString(id) {
		return malformed(
			"malformed tega id %s: use letters, digits, '-', '_' and '.', not starting "+
				"with '_'",
			shown(id),
		)
	}
	return nil
}

// SplitPattern splits a pattern at \. into one regular expression a level.
func SplitPattern(pattern string) ([]string, error) {
	if pattern == "" {
		return nil, malformed(`empty pattern: give one regular expression per level, split at '\.'`)
	}
	if strings.ContainsAny(pattern, "\r\n") {
		return nil, malformed(`malformed pattern %s: write a line break as \n`, shown(pattern))
	}
	return strings.Split(pattern, `\.`), nil
}

// Escaped is a dotted path as a parameter, which holds no space.
func Escaped(dotted string) string { return strings.ReplaceAll(dotted, " ", `\u0020`) }

// EscapedPattern is a pattern as a parameter, which holds no space.
func EscapedPattern(pattern string) string { return strings.ReplaceAll(pattern, " ", `\x20`) }
