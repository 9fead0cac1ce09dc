package tega

import "time"

// Hasty are options of a client that hardly waits before it connects again.
func Hasty(options Options) Options {
	options.firstPause = time.Millisecond
	return options
}
