package cli

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// selfSigned returns a certificate for a host, and its PEM without and with the key.
func selfSigned(t *testing.T, host string) (pair tls.Certificate, roots, whole string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // azidentity accepts no other kind
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{host},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	whole = roots + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, whole
}

// managedIdentity runs the token endpoint of an Azure virtual machine.
func managedIdentity(t *testing.T) (clients *[]string) {
	t.Helper()
	clients = new([]string)
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*clients = append(*clients, r.URL.Query().Get("client_id"))
		until := time.Now().Add(time.Hour).Unix()
		resource := r.URL.Query().Get("resource")
		token := part(map[string]any{"alg": "none"}) + "." + part(map[string]any{"exp": until, "nbf": until - 7200, "iat": until - 7200, "aud": resource, "iss": "https://sts.windows.net/11111111-2222-3333-4444-555555555555/"}) + "."
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_on": fmt.Sprint(until), "resource": resource, "token_type": "Bearer"})
	}))
	t.Cleanup(s.Close)
	t.Setenv("IDENTITY_ENDPOINT", s.URL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", "x")
	return clients
}

const contoso = "contoso.servicebus.windows.net"

// A namespace given by name, with a managed identity and its own root certificates, over TLS.
func TestAManagedIdentity(t *testing.T) {
	clients := managedIdentity(t)
	pair, roots, _ := selfSigned(t, contoso)
	e := emulator.New(emulator.Options{})
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, e, l)
	if err := e.CreateQueue("orders", emulator.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"roots.pem": roots, "drover.yaml": fmt.Sprintf(`
connections:
  bus:
    namespace: %s
    endpoint: %q
    identity: managed
    client_id: 11111111-2222-3333-4444-555555555555
    tls: {ca: "file:roots.pem"}
functions:
  orders:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app, function: greet}}
`, contoso, l.Addr()), "app/function_app.py": "def greet(body): print('hello', body.decode())\n"})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	status, out, errs := command(t.Context(), nil, strings.NewReader(""), "send", "-c", file, "orders", "--body", "ann")
	if status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	log.WaitFor(t, "hello ann")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if strings.Contains(log.String(), "no Manage right") {
		t.Error("the admin API was not reached")
	}
	if len(*clients) == 0 || (*clients)[0] != "11111111-2222-3333-4444-555555555555" {
		t.Errorf("tokens were asked for by %v", *clients)
	}
	// Without those root certificates the server is not trusted.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), `    tls: {ca: "file:roots.pem"}`, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs = command(t.Context(), nil, strings.NewReader(""), "run", file)
	if status != ExitStart || !strings.Contains(errs, "certificate") {
		t.Errorf("status %d: %s", status, errs)
	}
}

// emulated is an emulator.
type emulated interface {
	Serve(l net.Listener) error
	Close() error
}

// serve runs an emulator until the test ends.
func serve(t *testing.T, e emulated, l net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
}
