package tega_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// forwarder passes connections on to a server, and cuts them.
type forwarder struct {
	listener net.Listener
	target   string
	// budget says after how many bytes, in either direction, a connection is cut, given how many
	// there were before it; negative: never.
	budget func(number int) (up, down int)
	group  sync.WaitGroup

	mu     sync.Mutex
	number int
	open   map[net.Conn]bool
	over   bool
	// up and down are how many bytes the first connection has had.
	up, down atomic.Int64
	// gate is held while nothing gets through those connections that there were then; held has
	// those that are.
	gate *sync.RWMutex
	held []*sync.RWMutex
}

func startForwarder(
	t *testing.T, target string, budget func(number int) (up, down int),
) *forwarder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{listener: listener, target: target, budget: budget, open: map[net.Conn]bool{},
		gate: &sync.RWMutex{}}
	f.group.Add(1)
	go f.accept()
	t.Cleanup(func() {
		listener.Close()
		f.mu.Lock()
		f.over = true
		for _, gate := range f.held {
			gate.Unlock()
		}
		f.mu.Unlock()
		f.cut()
		f.group.Wait()
	})
	return f
}

func (f *forwarder) address() string { return f.listener.Addr().String() }

// passed is how many bytes the first connection has had.
func (f *forwarder) passed() (up, down int) {
	return int(f.up.Load()), int(f.down.Load())
}

// cut resets all connections.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.open {
		conn.Close()
	}
}

// stall lets nothing more through the connections that there are, and tells nobody.
func (f *forwarder) stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate.Lock()
	f.held = append(f.held, f.gate)
	f.gate = &sync.RWMutex{}
}

// gated is a connection from which nothing comes while its gate is held, and what does is counted.
type gated struct {
	net.Conn
	gate  *sync.RWMutex
	count *atomic.Int64
}

func (g gated) Read(into []byte) (int, error) {
	count, err := g.Conn.Read(into)
	if err == nil {
		g.gate.RLock()
		defer g.gate.RUnlock()
	}
	g.count.Add(int64(count))
	return count, err
}

func (f *forwarder) accept() {
	defer f.group.Done()
	for {
		near, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.group.Add(1)
		go f.forward(near)
	}
}

func (f *forwarder) forward(near net.Conn) {
	defer f.group.Done()
	far, err := net.Dial("tcp", f.target)
	if err != nil {
		near.Close()
		return
	}
	f.mu.Lock()
	up, down := f.budget(f.number)
	ups, downs := &f.up, &f.down
	if f.number > 0 {
		ups, downs = new(atomic.Int64), new(atomic.Int64)
	}
	f.number++
	gate := f.gate
	f.open[near], f.open[far] = true, true
	if f.over {
		near.Close()
	}
	f.mu.Unlock()
	done := make(chan bool, 2)
	pass := func(to, from net.Conn, most int) {
		if most < 0 {
			_, _ = io.Copy(to, from) // it ends when the connection does, however that is
		} else {
			_, _ = io.CopyN(to, from, int64(most))
		}
		done <- true
	}
	go pass(far, gated{near, gate, ups}, up)
	go pass(near, gated{far, gate, downs}, down)
	<-done
	for _, conn := range []net.Conn{near, far} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as of a machine that does not know of it
		}
		conn.Close()
	}
	<-done
	f.mu.Lock()
	delete(f.open, near)
	delete(f.open, far)
	f.mu.Unlock()
}
