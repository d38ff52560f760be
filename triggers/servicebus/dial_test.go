package servicebus

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// loweredListener limits messages on a server's sender links to 64 KiB, instead of 1 MiB and the
// emulator's envelope.
type loweredListener struct{ net.Listener }

func (l loweredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return loweredConn{c}, err
}

type loweredConn struct{ net.Conn }

func (c loweredConn) Write(b []byte) (int, error) {
	return c.Conn.Write(bytes.ReplaceAll(b, []byte("\x80\x00\x00\x00\x00\x00\x11\x00\x00"), []byte("\x80\x00\x00\x00\x00\x00\x01\x00\x00")))
}

// A message that was sent before the limit of its entity was lowered is received like any other.
func TestAMessageAboveALoweredLimit(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		served := make(chan error, 1)
		t.Cleanup(func() { <-served }) // after the emulator's end
		b := startWith(t, emulator.Options{MaxMessageSize: 1 << 20}, emulator.QueueOptions{RequiresSession: sessions})
		large := bytes.Repeat([]byte("x"), 500_000)
		for _, body := range [][]byte{[]byte("before"), large, []byte("after")} {
			b.send(t, triggers.Message{Body: body, OrderingKey: "a"})
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			served <- err
			t.Fatal(err)
		}
		go func() { served <- b.Serve(loweredListener{l}) }()
		b.address = l.Addr().String()
		tr := b.open(t, func(c *Config) { c.Sessions = sessions })
		for _, want := range [][]byte{[]byte("before"), large, []byte("after")} {
			d := receive(t, tr, 1)[0]
			if !bytes.Equal(d.Message.Body, want) || d.Message.Attempt != 1 {
				t.Errorf("attempt %d, and %d bytes; want %d", d.Message.Attempt, len(d.Message.Body), len(want))
			}
			settle(t, d, triggers.Done)
		}
		b.wantCounts(t, emulator.Counts{})
	}
}

type fixedToken struct{}

func (fixedToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "e30.e30.", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// A namespace can be reached at another endpoint, by TLS with the name of the namespace.
func TestTheNameOfANamespace(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	b := start(t, emulator.QueueOptions{})
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(l) }()
	defer func() { _ = l.Close(); <-served }()
	b.send(t, text("hello")...)
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	config := &tls.Config{RootCAs: roots}
	for namespace, want := range map[string]string{"example.com": "", "elsewhere.com": "not elsewhere.com"} {
		c, err := (&Access{Namespace: namespace, Credential: fixedToken{}, Endpoint: l.Addr().String(), TLS: config}).Client()
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.NewReceiverForQueue("orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.PeekMessages(t.Context(), 1, nil)
		if want == "" && (err != nil || len(got) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %d messages, %v; want %q", namespace, len(got), err, want)
		}
		if err := c.Close(t.Context()); err != nil && want == "" {
			t.Error(err)
		}
	}
	if config.ServerName != "" {
		t.Errorf("the configuration was changed: %q", config.ServerName)
	}
}
