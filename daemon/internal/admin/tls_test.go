package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"
)

// authority issues certificates.
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

func TestOverTLS(t *testing.T) {
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
		want     string // empty: the request succeeds
	}{
		{"a certificate", "", ca.pem, "", &configs.TLS{Cert: known, Key: knownKey}, ""},
		{"a certificate, and the roots by name", "", ca.pem, "", &configs.TLS{Cert: known, Key: knownKey, CA: ca.pem, ServerName: "drover.example"}, ""},
		{"a certificate of somebody else's", "", ca.pem, "", &configs.TLS{Cert: strange, Key: strangeKey}, "remote error: tls: unknown certificate authority"},
		{"no certificate", "", ca.pem, "", nil, "requires a client certificate"},
		{"a token", token, "", token, nil, ""},
		{"a wrong token", token, "", "wrong", nil, "this needs the admin token: Authorization: Bearer TOKEN"},
		{"a certificate instead of a token", token, ca.pem, "", &configs.TLS{Cert: known, Key: knownKey}, ""},
		{"a token instead of a certificate", token, ca.pem, token, nil, ""},
		{"neither", token, ca.pem, "wrong", nil, "this needs the admin token: Authorization: Bearer TOKEN, or a certificate signed by admin.tls.client_ca"},
		{"roots that do not fit", token, "", token, &configs.TLS{CA: other.pem, ServerName: "drover.example"}, "certificate signed by unknown authority"},
		{"a name that does not fit", token, "", token, &configs.TLS{CA: ca.pem}, "it doesn't contain any IP SANs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := configs.New()
			cfg.Admin = configs.Admin{Listen: daemontest.FreePort(t), Token: c.token, TLS: &configs.AdminTLS{Cert: cert, Key: configs.Secret(key), ClientCA: c.clientCA}}
			serve(t, cfg)
			asked := *cfg
			asked.Admin.Client = c.client
			client, err := NewClient(&asked)
			if err == nil {
				client.token = string(c.brings)
				_, err = client.GetHealth(t.Context(), api.HealthPath)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
			// Plain HTTP is refused.
			if status, _ := daemontest.SendGet(t, cfg.Admin.Listen, api.HealthPath, "Authorization: Bearer "+token); status != 400 {
				t.Errorf("plain HTTP is answered with %d", status)
			}
		})
	}
}
