package natsjs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

func TestWaysIn(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		server func(*server.Options)
		good   client.Config
		bad    client.Config
	}{
		"token":    {func(o *server.Options) { o.Authorization = "s3cret" }, client.Config{Token: "s3cret"}, client.Config{Token: "hunter2"}},
		"password": {func(o *server.Options) { o.Username, o.Password = "joe", "s3cret" }, client.Config{User: "joe", Password: "s3cret"}, client.Config{User: "joe", Password: "hunter2"}},
		"nkey":     {func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} }, client.Config{NKey: string(seed) + "\n"}, client.Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, test.server)
			test.good.URLs, test.bad.URLs = []string{b.url()}, []string{b.url()}
			tr := open(t, dialBroker(t, test.good), testConfig(t))
			if _, err := tr.Backlog(t.Context()); err != nil {
				t.Error(err)
			}
			test.bad.Log = testLog(t)
			_, err := client.Connect(t.Context(), test.bad)
			if err == nil || !strings.Contains(err.Error(), "check the connection's credentials") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := client.Connect(t.Context(), client.Config{URLs: []string{"nats://127.0.0.1:1"}, NKey: "nonsense", Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "nkey is not a seed") {
		t.Errorf("%v", err)
	}
	if _, err := client.Connect(t.Context(), client.Config{URLs: []string{"nats://127.0.0.1:1"}, Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "is the server there") {
		t.Errorf("%v", err)
	}
	if _, err := client.Connect(t.Context(), client.Config{URLs: []string{"nats://127.0.0.1:1"}, CA: "x", Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "tls.ca has no PEM") {
		t.Errorf("%v", err)
	}
}

// account is an operator's account with one user, and that user's .creds file.
func account(t *testing.T) (change func(*server.Options), credentials string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		t.Helper()
		p, err := create()
		must(err)
		public, err := p.PublicKey()
		must(err)
		return p, public
	}
	operator, operatorKey := pair(nkeys.CreateOperator)
	owner, ownerKey := pair(nkeys.CreateAccount)
	_, systemKey := pair(nkeys.CreateAccount)
	user, userKey := pair(nkeys.CreateUser)

	operatorClaims := jwt.NewOperatorClaims(operatorKey)
	operatorClaims.SystemAccount = systemKey
	operatorText, err := operatorClaims.Encode(operator)
	must(err)
	trusted, err := jwt.DecodeOperatorClaims(operatorText)
	must(err)
	resolver := new(server.MemAccResolver)
	for _, key := range []string{ownerKey, systemKey} {
		claims := jwt.NewAccountClaims(key)
		if key == ownerKey {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		text, err := claims.Encode(operator)
		must(err)
		must(resolver.Store(key, text))
	}
	userText, err := jwt.NewUserClaims(userKey).Encode(owner)
	must(err)
	seed, err := user.Seed()
	must(err)
	file, err := jwt.FormatUserConfig(userText, seed)
	must(err)
	return func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{trusted}, resolver, systemKey
	}, string(file)
}

func TestCredentialsFile(t *testing.T) {
	change, credentials := account(t)
	b := startBroker(t, change)
	c := dialBroker(t, client.Config{URLs: []string{b.url()}, Credentials: credentials})
	tr := open(t, c, testConfig(t))
	send(t, c, "orders.x", "1")
	done(t, receive(t, tr, 1)...)

	_, others := account(t)
	for name, text := range map[string]string{"another operator's": others, "none": ""} {
		_, err := client.Connect(t.Context(), client.Config{URLs: []string{b.url()}, Credentials: text, Log: testLog(t)})
		if err == nil || !strings.Contains(err.Error(), "check the connection's credentials") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.Connect(t.Context(), client.Config{URLs: []string{b.url()}, Credentials: "nonsense", Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "credentials has no user's seed") {
		t.Errorf("%v", err)
	}
}

// certificate returns a root, and a certificate from it for 127.0.0.1, as PEM.
func certificate(t *testing.T) (root, cert, key string) {
	t.Helper()
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return text("CERTIFICATE", der), text("CERTIFICATE", der), text("PRIVATE KEY", keyDER)
}

func TestTLS(t *testing.T) {
	root, cert, key := certificate(t)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(root))
	b := startBroker(t, func(o *server.Options) {
		o.TLS = true
		o.TLSTimeout = 10
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, MinVersion: tls.VersionTLS12}
	})
	c := dialBroker(t, client.Config{URLs: []string{b.url()}, CA: root, Cert: cert, Key: key})
	if c.State() != "connected" {
		t.Error(c.State())
	}
	for name, cfg := range map[string]client.Config{
		"no certificate of its own": {CA: root},
		"another root":              {Cert: cert, Key: key},
	} {
		cfg.URLs, cfg.Log = []string{b.url()}, testLog(t)
		if c, err := client.Connect(t.Context(), cfg); err == nil {
			_ = c.Close()
			t.Errorf("it connects with %s", name)
		}
	}
	if _, err := client.Connect(t.Context(), client.Config{URLs: []string{b.url()}, Cert: "x", Key: "y", Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "tls.cert and tls.key") {
		t.Errorf("%v", err)
	}
}

func TestEmbedded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	first := startServer(t, dir)
	if _, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: "off", Log: testLog(t)}); !errors.Is(err, embedded.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second server over the same directory: %v", err)
	}
	url, token, err := embedded.ReadClient(dir)
	if err != nil || url != first.ClientURL() || !strings.Contains(url, "127.0.0.1") || len(token) < 32 {
		t.Fatalf("client.json has %s, a token of %d bytes, %v", url, len(token), err)
	}
	for _, name := range []string{"token", "client.json", ""} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := client.Connect(t.Context(), client.Config{URLs: []string{url}, Log: testLog(t)}); err == nil {
		t.Error("it lets in who has no token")
	}
	other := dialBroker(t, client.Config{URLs: []string{url}, Token: token})
	tr := open(t, connect(t, first), testConfig(t))
	send(t, other, "orders.x", "from outside")
	done(t, receive(t, tr, 1)...)
	send(t, other, "orders.x", "kept")
	if err := errors.Join(tr.Close(t.Context()), first.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := embedded.ReadClient(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("client.json is left: %v", err)
	}
	second, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: "off", Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close(context.Background()) }()
	if second.ClientURL() != "" {
		t.Errorf("off, but it listens on %s", second.ClientURL())
	}
	if got := receive(t, open(t, connect(t, second), testConfig(t)), 1)[0]; string(got.Message.Body) != "kept" {
		t.Errorf("%q", got.Message.Body)
	}
}

func TestBadListen(t *testing.T) {
	for _, listen := range []string{"nonsense", "127.0.0.1:x"} {
		if _, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: listen, Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "listen:") {
			t.Errorf("%s: %v", listen, err)
		}
	}
}
