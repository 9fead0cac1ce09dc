package tega_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tega.internal/tega"
)

// rules are those of the servers here.
const rules = `
identities:
  box: {certificate: box.example.net}
rules:
- {who: reader, on: inventory.secret, may: ""}
- {who: reader, on: inventory, may: rs}
- {who: [agent, box], on: "*", may: rwxsp}
manage: [agent, box]
`

// startGuarded starts a server with rules, and tokens for agent and reader.
func startGuarded(t *testing.T, flags ...string) (s *testServer, agent, reader string) {
	t.Helper()
	s = newServer(t, flags...)
	agent, reader = s.token("add", "agent"), s.token("add", "reader")
	file := filepath.Join(s.directory, "access.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start("0")
	return s, agent, reader
}

// logged has what a client has logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// is checks that an error is a refusal with a status and a reason.
func is(t *testing.T, what string, err, want error, status int) {
	t.Helper()
	var why *tega.Error
	if !errors.Is(err, want) || !errors.As(err, &why) || why.Status != status ||
		why.Message == "" {
		t.Errorf("%s: %v", what, err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	server, token, guest := startGuarded(t)
	ctx := short(t)
	agent := dial(t, tega.Options{Address: server.address, Token: token})
	uuid := `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`
	if id := agent.TegaID(); !regexp.MustCompile("^agent-" + uuid).MatchString(id) {
		t.Errorf("its tega id is %s", id)
	}
	if _, err := agent.Put(ctx, "inventory", map[string]int{"mtu": 1, "secret": 2}); err != nil {
		t.Fatal(err)
	}
	if roots, err := agent.Roots(ctx); err != nil || len(roots) != 1 {
		t.Errorf("%v %v", roots, err)
	}
	_, secret, _ := strings.Cut(token, ".")
	for _, wrong := range []string{"", token + "x", "nobody." + secret} {
		_, err := tega.Dial(ctx, tega.Options{Address: server.address, Token: wrong})
		is(t, "the token "+wrong, err, tega.ErrUnauthorized, 401)
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the token is in %v", err)
		}
	}
	for _, wrong := range []string{secret, secret + ".b\tc", "a " + secret} {
		options := tega.Options{Address: server.address, Token: wrong}
		_, err := tega.Dial(ctx, options)
		is(t, "no token", err, tega.ErrMalformed, 400)
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "options", options, "pointer", &options)
		shown := fmt.Sprintf("%v %+v %s %#v %s", err, options, &options, options, &log)
		if strings.Contains(shown, secret) {
			t.Errorf("the token is in %s", shown)
		}
	}
	_, err := tega.Dial(ctx, tega.Options{Address: server.address, Token: token, TegaID: "reader"})
	is(t, "the tega id of another", err, tega.ErrForbidden, 403)

	reader := dial(t, tega.Options{Address: server.address, Token: guest, TegaID: "reader"})
	_, err = reader.Put(ctx, "inventory.mtu", 2)
	is(t, "a change", err, tega.ErrForbidden, 403)
	is(t, "a call", reader.Call(ctx, "inventory.f", nil), tega.ErrForbidden, 403)
	_, err = reader.Get(ctx, "other", nil)
	is(t, "a read", err, tega.ErrForbidden, 403)
	_, err = reader.Rollback(ctx, "inventory", -1)
	is(t, "over HTTP", err, tega.ErrForbidden, 403)
	_, err = reader.Subscribe(ctx, "other")
	is(t, "a subscription", err, tega.ErrForbidden, 403)
	var seen map[string]int
	if _, err := reader.Get(ctx, "inventory", &seen); err != nil || len(seen) != 1 {
		t.Errorf("%v %v", seen, err)
	}
}

func TestWhatIsWatchedIsCutDownByRules(t *testing.T) {
	t.Parallel()
	server, token, guest := startGuarded(t)
	agent := dial(t, tega.Options{Address: server.address, Token: token})
	reader := dial(t, tega.Options{Address: server.address, Token: guest})
	ctx := short(t)
	watched, err := reader.Subscribe(ctx, "inventory")
	if err != nil {
		t.Fatal(err)
	}
	put := func(path string, value any) {
		t.Helper()
		if _, err := agent.Put(ctx, path, value); err != nil {
			t.Fatal(err)
		}
	}
	put("inventory", map[string]int{"mtu": 1, "secret": 2})
	put("inventory.secret", 3)
	put("inventory.mtu", 4)
	for _, want := range []string{`inventory {"mtu":1}`, "inventory.mtu 4"} {
		told := next(t, watched.C)
		if len(told.Changes) != 1 ||
			told.Changes[0].Path+" "+string(told.Changes[0].Instance) != want {
			t.Errorf("%+v, not %s", told, want)
		}
	}
}

// TestARevokedToken ends the session for good, at once or when it connects again, and whoever uses
// it hears why.
func TestARevokedToken(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart=%v", apart), func(t *testing.T) {
			t.Parallel()
			server, token, guest := startGuarded(t)
			var log logged
			client := dial(t, tega.Options{
				Address: server.address, Token: token, Logger: log.logger(),
			})
			ctx := short(t)
			watched, err := client.Subscribe(ctx, "r")
			if err != nil {
				t.Fatal(err)
			}
			if apart {
				server.end(syscall.SIGKILL)
			}
			server.token("remove", "agent")
			if apart {
				server.start(server.port())
			}
			next(t, closes(client.Done()))
			is(t, "the session", client.Err(), tega.ErrUnauthorized, 401)
			if _, open := <-watched.C; open {
				t.Error("the subscription goes on")
			}
			is(t, "the subscription", watched.Err(), tega.ErrUnauthorized, 401)
			_, err = client.Put(ctx, "r", 1)
			is(t, "a change", err, tega.ErrUnauthorized, 401)
			_, err = client.Roots(ctx)
			is(t, "over HTTP", err, tega.ErrUnauthorized, 401)
			if !log.has("the session is over") || log.has(token) {
				t.Errorf("logged: %s", log.text.String())
			}
			// Others go on.
			dial(t, tega.Options{Address: server.address, Token: guest})
		})
	}
}

// TestAServerThatIsFull is tried again: it will not be so for ever.
func TestAServerThatIsFull(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--max-sessions", "1")
	var apart atomic.Bool
	link := startForwarder(t, server.address, func(int) (int, int) {
		if apart.Load() {
			return 0, 0
		}
		return -1, -1
	})
	var log logged
	client := dial(t, tega.Options{Address: link.address(), TegaID: "a", Logger: log.logger()})
	ctx := short(t)
	_, err := tega.Dial(ctx, tega.Options{Address: server.address, TegaID: "b"})
	is(t, "one more", err, tega.ErrOverLimit, 429)
	apart.Store(true)
	link.cut()
	other := persist(t, ctx, tega.Options{Address: server.address, TegaID: "b"})
	apart.Store(false)
	until(t, "the server is full", func() bool { return log.has("over_limit") })
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Put(ctx, "r", 1); err != nil {
		t.Error(err)
	}
}

// authority signs certificates.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	// file has its own certificate.
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	made := &authority{t: t}
	var text []byte
	made.certificate, made.key, text, _ = made.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	made.file = made.write("ca.pem", text)
	return made
}

// sign makes a key and a certificate, as PEM too: signed by the key itself where the authority has
// none yet.
func (a *authority) sign(of *x509.Certificate) (
	made *x509.Certificate, key *ecdsa.PrivateKey, certificatePEM, keyPEM []byte,
) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	of.SerialNumber = big.NewInt(time.Now().UnixNano())
	of.NotBefore, of.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = of, key
	}
	text, err := x509.CreateCertificate(rand.Reader, of, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	if made, err = x509.ParseCertificate(text); err != nil {
		a.t.Fatal(err)
	}
	return made, key,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: text}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func (a *authority) write(name string, text []byte) string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// issue makes the files of a certificate for a name, and for this machine.
func (a *authority) issue(name string) (certificate, key string) {
	a.t.Helper()
	_, _, text, private := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return a.write("cert.pem", text), a.write("key.pem", private)
}

// files is tega.TLSFiles of files that are right.
func files(t *testing.T, ca, certificate, key string) *tls.Config {
	t.Helper()
	made, err := tega.TLSFiles(ca, certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	certificate, key := ours.issue("srv.example.net")
	server, token, _ := startGuarded(t, "--tls-cert", certificate, "--tls-key", key)
	secure := "https://" + server.address
	misnamed := files(t, ours.file, "", "")
	misnamed.ServerName = "other.example.net"
	for what, given := range map[string]*tls.Config{
		"nobody vouches for it": nil,
		"another vouches":       files(t, theirs.file, "", ""),
		"it has another name":   misnamed,
	} {
		var unknown *tls.CertificateVerificationError
		options := tega.Options{Address: secure, Token: token, TLS: given}
		if _, err := tega.Dial(short(t), options); !errors.As(err, &unknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := tega.Dial(short(t), tega.Options{Address: server.address, Token: token})
	is(t, "without TLS", err, tega.ErrMalformed, 400)
	var last *tega.Client
	for _, address := range []string{secure, "wss://" + server.address, server.address} {
		last = dial(t, tega.Options{
			Address: address, Token: token, TLS: files(t, ours.file, "", ""),
		})
		if _, err := last.Put(short(t), "r", 1); err != nil {
			t.Error(err)
		}
		if _, err := last.Roots(short(t)); err != nil {
			t.Error(err)
		}
	}
	server.restart()
	for range 2 {
		if _, err := last.Put(short(t), "r", 2); err != nil {
			t.Error(err)
		}
	}
	if _, err := tega.Dial(short(t), tega.Options{
		Address: "http://" + server.address, TLS: files(t, ours.file, "", ""),
	}); err == nil {
		t.Error("TLS is set, and the address says otherwise")
	}
}

// TestAServerWithAnotherCertificate is not talked to until it has a good one again; what is asked
// meanwhile waits.
func TestAServerWithAnotherCertificate(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	certificate, key := ours.issue("srv.example.net")
	server := startServer(t, "--tls-cert", certificate, "--tls-key", key)
	link := startForwarder(t, server.address, func(int) (int, int) { return -1, -1 })
	var log logged
	client := dial(t, tega.Hasty(tega.Options{
		Address: link.address(), TLS: files(t, ours.file, "", ""), Logger: log.logger(),
	}))
	ctx := short(t)
	asked := make(chan error, 1)
	for number, by := range []*authority{theirs, ours} {
		newCertificate, newKey := by.issue("srv.example.net")
		for to, from := range map[string]string{certificate: newCertificate, key: newKey} {
			if err := os.WriteFile(to, content(t, from), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := server.process.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, "it shows the new one", func() bool {
			shown, err := tls.Dial("tcp", server.address, files(t, by.file, "", ""))
			if err == nil {
				shown.Close()
			}
			return err == nil
		})
		if number == 0 {
			// The connection that there is goes on.
			if _, err := client.Put(ctx, "r", 0); err != nil {
				t.Error(err)
			}
			link.cut()
			go func() { asked <- second(client.Put(ctx, "r", 1)) }()
			until(t, "it is not trusted", func() bool { return log.has("unknown authority") })
		}
	}
	if err := next(t, asked); err != nil {
		t.Error(err)
	}
}

func TestACertificateSaysWhoItIs(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	certificate, key := ours.issue("srv.example.net")
	server, _, _ := startGuarded(
		t, "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", ours.file,
	)
	own, ownKey := ours.issue("box.example.net")
	both := ours.write("both.pem", append(content(t, own), content(t, ownKey)...))
	options := tega.Options{Address: server.address, TegaID: "box-1"}
	for _, options.TLS = range []*tls.Config{
		files(t, ours.file, own, ownKey), files(t, ours.file, both, ""),
	} {
		client := dial(t, options)
		if _, err := client.Put(short(t), "r", 1); err != nil {
			t.Error(err)
		}
		if _, err := client.Roots(short(t)); err != nil {
			t.Error(err)
		}
	}
	options.TLS = files(t, ours.file, "", "")
	_, err := tega.Dial(short(t), options)
	is(t, "without a certificate", err, tega.ErrUnauthorized, 401)
	foreign, private := theirs.issue("box.example.net")
	options.TLS = files(t, ours.file, foreign, private)
	var refusal *tega.Error
	if _, err := tega.Dial(short(t), options); err == nil || errors.As(err, &refusal) {
		t.Errorf("with a certificate that another has signed: %v", err)
	}
	// Renewed, it is taken from the same files.
	for to, from := range map[string]string{foreign: own, private: ownKey} {
		if err := os.WriteFile(to, content(t, from), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dial(t, options)
	for _, wrong := range [][3]string{
		{"no-such-file"}, {key}, {"", certificate, ""}, {"", key, certificate}, {"", "", key},
	} {
		if _, err := tega.TLSFiles(wrong[0], wrong[1], wrong[2]); err == nil {
			t.Errorf("%v", wrong)
		}
	}
}

func content(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestWhoSendsElsewhere is not followed: the token is for one server.
func TestWhoSendsElsewhere(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	asked := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Authorization")
	}))
	defer other.Close()
	sends := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/_pubsub" {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
			return
		}
		target := &url.URL{Scheme: "http", Host: server.address}
		httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
	}))
	defer sends.Close()
	client := dial(t, tega.Options{Address: sends.URL, Token: "agent.secret"})
	if roots, err := client.Roots(short(t)); err == nil {
		t.Errorf("%v", roots)
	}
	if len(asked) != 0 {
		t.Errorf("it was followed, with %q", <-asked)
	}
}
