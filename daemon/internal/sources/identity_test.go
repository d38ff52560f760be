package sources

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
)

// selfSigned returns a certificate in PEM, and the same with its key.
func selfSigned(t *testing.T) (certificate, whole string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // azidentity accepts no other kind
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return certificate, certificate + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func TestIdentities(t *testing.T) {
	roots, whole := selfSigned(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const contoso = "contoso.servicebus.windows.net"
	for _, test := range []struct {
		c    configs.Connection
		want string // of the error
	}{
		{configs.Connection{Identity: "auto"}, ""},
		{configs.Connection{Identity: "managed"}, ""},
		{configs.Connection{Identity: "cli"}, ""},
		{configs.Connection{Identity: "certificate", Certificate: configs.Secret(whole), ClientID: "c", TenantID: "t"}, ""},
		{configs.Connection{Identity: "certificate", Certificate: configs.Secret(roots), ClientID: "c", TenantID: "t"}, "no PEM certificate with its key"},
		{configs.Connection{Identity: "workload"}, "connection bus, identity workload: "},
		{configs.Connection{Identity: "auto", TLS: &configs.TLS{CA: "no pem"}}, "tls.ca has no PEM certificate"},
	} {
		test.c.Namespace = contoso
		_, err := busAccess("bus", test.c)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.c.Identity, err, test.want)
		}
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", token)
	t.Setenv("AZURE_CLIENT_ID", "c")
	t.Setenv("AZURE_TENANT_ID", "t")
	if _, err := busAccess("bus", configs.Connection{Namespace: contoso, Identity: "workload"}); err != nil {
		t.Error(err)
	}
}

func TestStorageAccounts(t *testing.T) {
	for _, test := range []struct {
		c    configs.Connection
		want string // of the error
	}{
		{configs.Connection{StorageAccount: "contoso", Identity: "managed"}, ""},
		{configs.Connection{StorageAccount: "contoso", Identity: "workload"}, "connection store, identity workload: "},
		{configs.Connection{StorageAccount: "contoso", Identity: "managed", TLS: &configs.TLS{CA: "no pem"}}, "tls.ca has no PEM certificate"},
	} {
		a, err := storageAccount("store", test.c)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
		if a != nil {
			a.Close()
		}
	}
}
