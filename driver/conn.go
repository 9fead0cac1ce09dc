package tega

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxCorked is how many bytes wait to be written together, at most.
const maxCorked = 64 << 10

// conn is a connection of which any byte that comes is a sign of life, and whose writes can be held
// back to go out together.
type conn struct {
	net.Conn
	// patience is for how long it may be silent.
	patience time.Duration
	// begun is when it did; by the monotonic clock, as that of a small box is set once it is up.
	begun time.Time
	// heard is when the last byte came: nanoseconds since then.
	heard atomic.Int64

	mu     sync.Mutex
	corked bool
	held   []byte
}

func (c *conn) Read(into []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	count, err := c.Conn.Read(into)
	if count > 0 {
		c.heard.Store(int64(time.Since(c.begun)))
	}
	return count, err
}

// silent is for how long nothing has come.
func (c *conn) silent() time.Duration {
	return time.Since(c.begun) - time.Duration(c.heard.Load())
}

func (c *conn) Write(data []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked && len(c.held)+len(data) <= maxCorked {
		c.held = append(c.held, data...)
		return len(data), nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Write(data)
}

// cork holds back what is written from now on.
func (c *conn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// uncork lets go what was held back.
func (c *conn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

func (c *conn) flush() error {
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}
