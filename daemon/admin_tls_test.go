package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := new(authority)
	a.pem, _ = a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes a certificate; the first is the authority's own.
func (a *authority) issue(t *testing.T, c *x509.Certificate) (cert, key string) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, own
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &own.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		a.key = own
	}
	secret, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func (a *authority) server(t *testing.T, name string) (cert, key string) {
	return a.issue(t, &x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (a *authority) client(t *testing.T) (cert string, key configs.Secret) {
	cert, text := a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "operator"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return cert, configs.Secret(text)
}

func TestAdminOverTLS(t *testing.T) {
	const token = "0123456789abcdef0123"
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.server(t, "drover.example")
	known, knownKey := ca.client(t)
	strange, strangeKey := other.client(t)
	for _, c := range []struct {
		name     string
		token    configs.Secret // of the server
		clientCA string
		brings   configs.Secret
		client   *configs.TLS
		want     string // empty: it is answered
	}{
		{"a certificate", "", ca.pem, "", &configs.TLS{Cert: known, Key: knownKey}, ""},
		{"a certificate, and the roots by name", "", ca.pem, "", &configs.TLS{Cert: known, Key: knownKey, CA: ca.pem, ServerName: "drover.example"}, ""},
		{"a certificate of somebody else's", "", ca.pem, "", &configs.TLS{Cert: strange, Key: strangeKey}, "remote error: tls: unknown certificate authority"},
		{"no certificate", "", ca.pem, "", nil, "requires a client certificate"},
		{"a token", token, "", token, nil, ""},
		{"a wrong token", token, "", "wrong", nil, "this needs the admin token: Authorization: Bearer TOKEN"},
		{"a certificate in place of a token", token, ca.pem, "", &configs.TLS{Cert: known, Key: knownKey}, ""},
		{"a token in place of a certificate", token, ca.pem, token, nil, ""},
		{"neither", token, ca.pem, "wrong", nil, "this needs the admin token: Authorization: Bearer TOKEN, or a certificate that admin.tls.client_ca vouches for"},
		{"roots that do not fit", token, "", token, &configs.TLS{CA: other.pem, ServerName: "drover.example"}, "certificate signed by unknown authority"},
		{"a name that does not fit", token, "", token, &configs.TLS{CA: ca.pem}, "it doesn't contain any IP SANs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, cfg := adminDaemon(t, func(cfg *configs.Config) {
				cfg.Admin = configs.Admin{Listen: freePort(t), Token: c.token, TLS: &configs.AdminTLS{Cert: cert, Key: configs.Secret(key), ClientCA: c.clientCA}}
			})
			asked := *cfg
			asked.Admin.Client = c.client
			client, err := newAdminClient(&asked)
			var s StatusReport
			if err == nil {
				client.token = string(c.brings)
				err = client.get(t.Context(), "/v1/status", &s)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
			// Over plain HTTP there is nothing.
			if status, _ := ask(t, cfg.Admin.Listen, "/healthz", "Authorization: Bearer "+token); status != 400 {
				t.Errorf("plain HTTP is answered with %d", status)
			}
		})
	}
}

// The admin server can be asked by those who come in by a port that listens
// everywhere, as commands do.
func TestAdminThatListensEverywhere(t *testing.T) {
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _, cfg := adminDaemon(t, func(cfg *configs.Config) {
		cfg.Admin = configs.Admin{Listen: ":" + port, Token: "0123456789abcdef0123"}
	})
	client, err := newAdminClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s StatusReport
	if err := client.get(t.Context(), "/v1/status", &s); err != nil {
		t.Error(err)
	}
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], "unencrypted") {
		t.Errorf("the warnings are %q", cfg.Warnings)
	}
}

// A daemon whose token is missing, empty, or for all to read does not start.
func TestAdminTokenFile(t *testing.T) {
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
		status     int
	}{
		{"missing", "", 0, "cannot be read: no such file or directory", ExitFailed},
		{"empty", "\n", 0o600, "set token", ExitFailed},
		{"short", "secret\n", 0o600, "fewer than 16 characters", ExitFailed},
		{"world-readable", "0123456789abcdef0123\n", 0o644, "(mode 0644); chmod 600 it", ExitFailed},
		{"right", "0123456789abcdef0123\n", 0o600, "no daemon of this configuration is running here", ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, map[string]string{
				"drover.yaml":         "version: 1\nadmin: {listen: \"" + freePort(t) + "\", token: \"file:admin.token\"}\nfunctions: {greet: {trigger: {nats: {}}, handler: {python: {path: app}}}}\n",
				"app/function_app.py": "def greet(body): pass\n",
			})
			if c.mode != 0 {
				file := filepath.Join(dir, "admin.token")
				if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(file, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"run"}
			if c.name == "right" {
				args = []string{"status"}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			status, _, errs := command(ctx, nil, nil, append(args, "-c", filepath.Join(dir, "drover.yaml"))...)
			if status != c.status || !strings.Contains(errs, c.want) || strings.Contains(errs, "0123456789abcdef") {
				t.Errorf("status %d\n%s; want %s", status, errs, c.want)
			}
		})
	}
}
