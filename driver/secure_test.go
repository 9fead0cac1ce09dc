package tega_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"tega.internal/tega"
)

// guarded is a server that speaks just enough of the protocol for a session to begin, and lets in
// who has the token.
func guarded(t *testing.T, token string, configure func(*httptest.Server)) *httptest.Server {
	t.Helper()
	upgrader := websocket.Upgrader{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch given := r.Header.Get("Authorization"); given {
		case "Bearer " + token:
		case "Bearer guest":
			http.Error(
				w,
				`{"error": {"code": "forbidden", "message": "guests read alone"}}`,
				http.StatusForbidden,
			)
			return
		default:
			http.Error(
				w,
				`{"error": {"code": "unauthorized", "message": "give a token"}}`,
				http.StatusUnauthorized,
			)
			return
		}
		if r.URL.Path == "/_roots" {
			_, _ = w.Write([]byte(`{"r": 3}`))
			return
		}
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer socket.Close()
		for {
			_, text, err := socket.ReadMessage()
			if err != nil {
				return
			}
			answer := "SESSIONACK srv\n{\"life\":\"1\",\"seq\":0}"
			if words := strings.Fields(string(text)); words[0] == "REQUEST" {
				head := "RESPONSE " + words[1] + " TX " + words[3] + "\n"
				answer = head + `{"results":[],"seq":1}`
			}
			if err := socket.WriteMessage(websocket.TextMessage, []byte(answer)); err != nil {
				return
			}
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	server.Config.ErrorLog = nil
	if configure == nil {
		server.Start()
	} else {
		configure(server)
		server.StartTLS()
	}
	t.Cleanup(server.Close)
	return server
}

func TestTokens(t *testing.T) {
	server := guarded(t, "secret", nil)
	client := dial(t, tega.Options{Address: server.URL, Token: "secret"})
	if _, err := client.Put(short(t), "r", 1); err != nil {
		t.Error(err)
	}
	if roots, err := client.Roots(short(t)); err != nil || roots["r"] != 3 {
		t.Errorf("%v %v", roots, err)
	}
	refused := map[string]error{"": tega.ErrUnauthorized, "guest": tega.ErrForbidden}
	for token, want := range refused {
		_, err := tega.Dial(short(t), tega.Options{Address: server.URL, Token: token})
		var why *tega.Error
		if !errors.Is(err, want) || !errors.As(err, &why) || why.Status/100 != 4 ||
			why.Message == "" {
			t.Errorf("%q: %v", token, err)
		}
		if err != nil && token != "" && strings.Contains(err.Error(), token+" ") {
			t.Errorf("the token is in %v", err)
		}
	}
	if _, err := tega.Dial(short(t), tega.Options{Address: server.URL, Token: "a\nb"}); err == nil {
		t.Error("a line break")
	}
}

// files writes the certificate and key of a test server as PEM.
func files(t *testing.T, server *httptest.Server) (certificate, key string) {
	t.Helper()
	pair := server.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write(
			"cert.pem",
			"CERTIFICATE",
			pair.Certificate[0],
		), write(
			"key.pem", "PRIVATE KEY", private,
		)
}

func TestTLS(t *testing.T) {
	server := guarded(t, "secret", func(*httptest.Server) {})
	certificate, key := files(t, server)
	options := tega.Options{Address: server.URL, Token: "secret"}
	// Nobody vouches for it.
	var unknown *tls.CertificateVerificationError
	if _, err := tega.Dial(short(t), options); !errors.As(err, &unknown) {
		t.Errorf("%v", err)
	}
	var err error
	if options.TLS, err = tega.TLSFiles(certificate, "", ""); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{
		server.URL, strings.Replace(server.URL, "https", "wss", 1),
		strings.TrimPrefix(server.URL, "https://"),
	} {
		options.Address = address
		client := dial(t, options)
		if _, err := client.Put(short(t), "r", 1); err != nil {
			t.Error(err)
		}
		if _, err := client.Roots(short(t)); err != nil {
			t.Error(err)
		}
	}
	// The name is verified, too.
	options.TLS.ServerName = "other.example.org"
	if _, err := tega.Dial(short(t), options); !errors.As(err, &unknown) {
		t.Errorf("%v", err)
	}
	options.Address, options.TLS.ServerName = strings.Replace(server.URL, "https", "http", 1), ""
	if _, err := tega.Dial(short(t), options); err == nil {
		t.Error("TLS is set, and the address says otherwise")
	}
	asks := guarded(t, "secret", func(server *httptest.Server) {
		server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	})
	options = tega.Options{Address: asks.URL, Token: "secret"}
	own, _ := files(t, asks)
	if options.TLS, err = tega.TLSFiles(own, "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := tega.Dial(short(t), options); err == nil {
		t.Error("let in without a certificate")
	}
	if options.TLS, err = tega.TLSFiles(own, certificate, key); err != nil {
		t.Fatal(err)
	}
	dial(t, options)
	for _, wrong := range [][3]string{
		{"no-such-file"}, {key}, {"", certificate, ""}, {"", key, certificate},
	} {
		if _, err := tega.TLSFiles(wrong[0], wrong[1], wrong[2]); err == nil {
			t.Errorf("%v", wrong)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, options := range []tega.Options{
		{Address: "nowhere"}, {Address: "ftp://a:1"}, {Address: "a:0"}, {Address: "a:http"},
		{Address: "http://a:1/path"}, {Address: "http://user@a:1"}, {Address: "::1:8739"},
		{TegaID: "_x"}, {TegaID: "a b"}, {Scope: "wide"},
	} {
		if client, err := tega.Dial(context.Background(), options); err == nil {
			client.Close()
			t.Errorf("%+v", options)
		}
	}
}

// TestABlackHole dials what accepts and says nothing: the context ends it.
func TestABlackHole(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	defer server.Listener.Close()
	ctx, cancel := context.WithCancel(context.Background())
	dialed := make(chan error, 1)
	go func() {
		_, err := tega.Dial(ctx, tega.Options{Address: server.Listener.Addr().String()})
		dialed <- err
	}()
	accepted, err := server.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	cancel()
	if err := next(t, dialed); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
