package tega

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"tega.internal/tega/internal/wire"
)

// Scope says from where a subscription hears the messages of its channel.
type Scope string

const (
	// Local hears messages that are published on the same server.
	Local Scope = "local"
	// Global hears those that are published on other servers too.
	Global Scope = "global"
)

// Options are how a client connects. The zero value is a client of a server on this machine.
type Options struct {
	// Address is HOST:PORT, or a URL such as https://tega.lan:8739; by default 127.0.0.1:8739. With
	// https or wss, or with TLS set, the connection is encrypted.
	Address string
	// TLS is how it is encrypted, and how the server is verified: by default by the system's
	// authorities. [TLSFiles] makes one of files.
	TLS *tls.Config
	// Token is NAME.SECRET, as "tega-server token add NAME" has printed it. It goes with the
	// handshake and every request; without TLS, whoever is on the way can read it.
	Token string
	// TegaID says who this is; by default a new one, which begins with the NAME of the token. A
	// server has one session of a tega id: a second client with the same one takes it over.
	TegaID string
	// Scope is that of subscriptions that do not say another; by default Local.
	Scope Scope
	// Logger is told of lost connections and the like; by default slog.Default().
	Logger *slog.Logger
	// Buffer is how many bytes may wait with one subscription for a slow reader; by default 4 MiB.
	Buffer int
	// PingInterval is for how long a server may be silent until it is pinged; by default 10 s.
	PingInterval time.Duration
	// PingTimeout is for how long it may be silent until the connection is made anew; by default
	// 30 s. It bounds each try to connect, too.
	PingTimeout time.Duration

	// firstPause is before the second try to reconnect; tests have a shorter one.
	firstPause time.Duration
}

// String leaves out the token, so that no log shows it.
func (o Options) String() string {
	type plain Options
	if o.Token != "" {
		o.Token = "..."
	}
	return fmt.Sprintf("%+v", plain(o))
}

// GoString leaves out the token, too.
func (o Options) GoString() string { return o.String() }

// LogValue leaves out the token, too.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// TLSFiles is a TLS configuration of PEM files: the authorities that a server is verified by, and
// the certificate of this client with its key; without a file of its own, that is with the
// certificate, which is read again for each connection: it may be renewed. What is empty is left as
// it is by default.
func TLSFiles(ca, certificate, key string) (*tls.Config, error) {
	made := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("tega: %w", err)
		}
		made.RootCAs = x509.NewCertPool()
		if !made.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("tega: %s has no certificate in PEM", ca)
		}
	}
	if certificate != "" || key != "" {
		read := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certificate, cmp.Or(key, certificate))
			if err != nil {
				return nil, fmt.Errorf("tega: the client's certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := read(nil); err != nil {
			return nil, err
		}
		made.GetClientCertificate = read
	}
	return made, nil
}

// server is where a server is.
type server struct {
	address string // HOST:PORT
	secure  bool
}

func (s server) url(scheme, path string) string {
	if s.secure {
		scheme += "s"
	}
	return scheme + "://" + s.address + path
}

// isLocal says whether what goes there stays on this machine.
func (s server) isLocal() bool {
	host, _, _ := net.SplitHostPort(s.address) // it was made of these
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// token is what one looks like.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// settled are options with everything filled in.
func (o Options) settled() (Options, server, error) {
	at, err := o.server()
	if err != nil {
		return o, at, err
	}
	if o.Token != "" && !token.MatchString(o.Token) {
		return o, at, refusal("malformed", "the token is not right: it is NAME.SECRET")
	}
	if o.TegaID == "" {
		name, _, _ := strings.Cut(o.Token, ".")
		o.TegaID = cmp.Or(name, "go") + "-" + newID()
	}
	if err := wire.CheckTegaID(o.TegaID); err != nil {
		return o, at, malformed(err)
	}
	if o.Scope == "" {
		o.Scope = Local
	}
	if o.Scope != Local && o.Scope != Global {
		return o, at, refusal("malformed", "scope %q: it is local or global", o.Scope)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Buffer <= 0 {
		o.Buffer = 4 << 20
	}
	if o.PingInterval <= 0 {
		o.PingInterval = 10 * time.Second
	}
	if o.PingTimeout <= 0 {
		o.PingTimeout = 30 * time.Second
	}
	o.firstPause = cmp.Or(o.firstPause, firstPause)
	return o, at, nil
}

func (o Options) server() (server, error) {
	address, secure := o.Address, o.TLS != nil
	if address == "" {
		address = "127.0.0.1:8739"
	}
	if strings.Contains(address, "://") {
		given, err := url.Parse(address)
		if err != nil {
			return server{}, fmt.Errorf("tega: address: %w", err)
		}
		switch given.Scheme {
		case "https", "wss":
			secure = true
		case "http", "ws":
			if secure {
				return server{}, fmt.Errorf(
					"tega: address %s is not encrypted, and TLS is set", address,
				)
			}
		default:
			return server{}, fmt.Errorf("tega: address %s: use http, https, ws or wss", address)
		}
		if strings.Trim(given.Path, "/") != "" || given.RawQuery != "" || given.User != nil {
			return server{}, fmt.Errorf(
				"tega: address %s: give scheme, host and port alone", address,
			)
		}
		if address = given.Host; given.Port() == "" {
			address = net.JoinHostPort(given.Hostname(), "8739")
		}
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return server{}, fmt.Errorf("tega: address %s: give HOST:PORT: %w", address, err)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return server{}, fmt.Errorf("tega: address %s: %q is not a port", address, port)
	}
	return server{address, secure}, nil
}
