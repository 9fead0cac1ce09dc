package tega_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tega.internal/tega"
)

// testServer is a server process of this clone, on a directory of its own.
type testServer struct {
	t         *testing.T
	directory string
	address   string
	flags     []string
	process   *exec.Cmd
}

// startServer starts one; it is stopped at the end of the test.
func startServer(t *testing.T, flags ...string) *testServer {
	t.Helper()
	s := newServer(t, flags...)
	s.start("0")
	return s
}

// newServer is one that is not started yet.
func newServer(t *testing.T, flags ...string) *testServer {
	t.Helper()
	s := &testServer{t: t, directory: t.TempDir(), flags: flags}
	t.Cleanup(func() {
		if s.process != nil {
			s.end(syscall.SIGTERM)
		}
	})
	return s
}

// token adds a token of a name, which it gives, or removes all that it has.
func (s *testServer) token(what, name string) string {
	s.t.Helper()
	root, python, err := installed()
	if err != nil {
		s.t.Skipf("the server of this clone is not installed (%v): run scripts/test once", err)
	}
	command := exec.Command(python, "-m", "tega.server", "token", what, name, "-d", s.directory)
	command.Dir = root
	text, err := command.CombinedOutput()
	if err != nil {
		s.t.Fatalf("token %s %s: %v: %s", what, name, err, text)
	}
	return strings.TrimSpace(string(text))
}

// start starts it, and waits until it listens.
func (s *testServer) start(port string) {
	s.t.Helper()
	var err error
	s.process, s.address, err = launch(s.directory, port, s.flags...)
	if errors.Is(err, fs.ErrNotExist) {
		s.t.Skipf("the server of this clone is not installed (%v): run scripts/test once", err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// installed is where this clone is, and the Python that its server runs with.
func installed() (root, python string, err error) {
	if root, err = filepath.Abs(".."); err != nil {
		return "", "", err
	}
	python = filepath.Join(root, ".venv", "bin", "python")
	_, err = os.Stat(python)
	return root, python, err
}

// launch starts a server process, and waits until it listens.
func launch(directory, port string, flags ...string) (*exec.Cmd, string, error) {
	root, python, err := installed()
	if err != nil {
		return nil, "", err
	}
	arguments := []string{"-m", "tega.server", "-t", "srv", "-d", directory, "-p", port}
	process := exec.Command(python, append(arguments, flags...)...)
	process.Dir = root
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := process.Start(); err != nil {
		return nil, "", err
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if at, ready := strings.CutPrefix(lines.Text(), "ready on "); ready {
			return process, "127.0.0.1" + at[strings.LastIndexByte(at, ':'):], nil
		}
	}
	return nil, "", fmt.Errorf("the server does not start: %w", process.Wait())
}

// end stops it with a signal.
func (s *testServer) end(signal syscall.Signal) {
	s.t.Helper()
	process := s.process
	s.process = nil
	if err := process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
	if err := process.Wait(); err != nil && signal == syscall.SIGTERM {
		s.t.Errorf("the server ends with %v", err)
	}
}

// restart kills it, and starts it again on the same port.
func (s *testServer) restart() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
	s.start(s.port())
}

func (s *testServer) port() string { return s.address[strings.LastIndexByte(s.address, ':')+1:] }

// dial is a client, closed at the end of the test.
func dial(t *testing.T, options tega.Options) *tega.Client {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(
			slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}),
		)
	}
	client, err := tega.Dial(short(t), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// silent is a logger for clients whose connections are lost all the time.
var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// testLog writes what a client logs where the test does; nothing once that is over.
type testLog struct{ t *testing.T }

func (l testLog) Write(text []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(text)))
	return len(text), nil
}

// short is a context for what should not take long.
func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// next is what comes next.
func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case item, open := <-from:
		if !open {
			t.Fatal("the channel is closed")
		}
		return item
	case <-time.After(30 * time.Second):
		t.Fatal("nothing comes")
	}
	panic("not reached")
}

// until waits until something is so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// TestMain starts a server for the examples, and looks after all tests for goroutines that the
// driver has left behind.
func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (int, error) {
	directory, err := os.MkdirTemp("", "tega-examples-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(directory)
	process, address, err := launch(directory, "0")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(
			os.Stderr, "the examples are skipped: the server of this clone is not installed",
		)
		err = flag.Set("test.skip", "^Example")
	case err == nil:
		exampleAddress = address
		defer func() {
			process.Process.Kill()
			process.Wait()
		}()
	}
	if err != nil {
		return 1, err
	}
	// Tests wait for servers and clocks more than they compute; -parallel tells otherwise.
	if err := flag.Set("test.parallel", "8"); err != nil {
		return 1, err
	}
	code := m.Run()
	if left := leftBehind(); code == 0 && left != "" {
		return 1, fmt.Errorf("goroutines are left behind:\n%s", left)
	}
	return code, nil
}

// leftBehind are the stacks of the driver's goroutines that do not end by themselves.
func leftBehind() string {
	var left []string
	for range 200 {
		left = nil
		buffer := make([]byte, 1<<20)
		for _, stack := range strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
			if strings.Contains(stack, "tega.internal/tega.") ||
				strings.Contains(stack, "persistConn") {
				left = append(left, stack)
			}
		}
		if left == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return strings.Join(left, "\n\n")
}

// name is a name that no other has.
func name(prefix string, number int) string { return prefix + strconv.Itoa(number) }
