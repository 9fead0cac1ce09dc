package tega

import (
	"regexp"

	"tega.internal/tega/internal/wire"
)

// subscription is a path or a pattern that is subscribed to, once for all that listen to it.
type subscription struct {
	// text is the path or pattern as the server names it.
	text   string
	levels wire.Path
	regex  bool
	scope  Scope
	// heard has who listens, each with what it has heard up to; nil: nothing yet.
	heard map[*listener]*wire.Since
	// since is where the next SUBSCRIBE is to go on; nil: at what is new then.
	since *wire.Since
	// seen is the number up to which this connection has brought all there was; negative: it is
	// still to tell how all stands.
	seen int64
	// awaits is how many times the server is still to go back for it: no notice is taken until
	// then.
	awaits int
	// dirty says that something has come for it meanwhile.
	dirty    bool
	matchers []*regexp.Regexp
}

func newSubscription(text string, regex bool, scope Scope) (*subscription, error) {
	made := &subscription{regex: regex, scope: scope, seen: -1, heard: map[*listener]*wire.Since{}}
	if !regex {
		path, err := wire.ParsePath(text)
		if err != nil {
			return nil, malformed(err)
		}
		made.levels, made.text = path, path.String()
		return made, nil
	}
	levels, err := wire.SplitPattern(text)
	if err != nil {
		return nil, malformed(err)
	}
	for _, level := range levels {
		if _, err := regexp.Compile(level); err != nil {
			return nil, refusal("malformed", "malformed pattern %q: %v", level, err)
		}
		made.matchers = append(made.matchers, regexp.MustCompile("^(?:"+level+")"))
	}
	made.levels, made.text = levels, wire.EscapedPattern(text)
	return made, nil
}

// key tells it from all others.
func (one *subscription) key() string { return keyOf(one.text, one.regex) }

func keyOf(text string, regex bool) string {
	if regex {
		return "~" + text
	}
	return "=" + text
}

// covers says whether a path is one of those subscribed to, or stands below one.
func (one *subscription) covers(path wire.Path) bool {
	if !one.regex {
		return one.levels.Has(path)
	}
	if len(path) < len(one.matchers) {
		return false
	}
	for depth, matcher := range one.matchers {
		if !matcher.MatchString(path[depth]) {
			return false
		}
	}
	return true
}

// coversRoot says whether a root has, or may have, something of it.
func (one *subscription) coversRoot(root string) bool {
	if !one.regex {
		return one.levels[0] == root
	}
	return one.matchers[0].MatchString(root)
}

// message is what asks the server for it.
func (one *subscription) message() *wire.Subscribe {
	return &wire.Subscribe{
		Path:  one.text,
		Scope: string(one.scope),
		Regex: one.regex,
		Since: one.since,
	}
}
