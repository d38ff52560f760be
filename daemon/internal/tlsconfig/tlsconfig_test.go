package tlsconfig

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs"
)

func TestForClient(t *testing.T) {
	t.Parallel()
	if got, err := ForClient(nil); got != nil || err != nil {
		t.Errorf("without settings: %v, %v", got, err)
	}
	got, err := ForClient(&configs.TLS{ServerName: "broker"})
	if err != nil || got.ServerName != "broker" || got.MinVersion != tls.VersionTLS12 || got.RootCAs != nil {
		t.Errorf("with a server name only: %+v, %v", got, err)
	}
	for want, settings := range map[string]configs.TLS{
		"tls.ca has no certificate in PEM; did you mean file:PATH?": {CA: "ca.pem"},
		"tls.cert and tls.key: ":                                    {Cert: "cert.pem", Key: "key.pem"},
	} {
		if _, err := ForClient(&settings); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", settings, err, want)
		}
	}
}
