// Package tlsconfig makes TLS configurations for the connections of the daemon to servers:
// to HTTP apps, to a collector of traces, and of commands to the admin server. Its function
// is safe for use by many goroutines.
package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/drover-run/drover/configs"
)

// ForClient returns the TLS configuration of a client, at least TLS 1.2. It is nil, for
// Go's defaults, if settings is nil. Without a ca the system's authorities are trusted.
// An error names the key that has no valid certificate or private key.
func ForClient(settings *configs.TLS) (*tls.Config, error) {
	if settings == nil {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: settings.ServerName}
	if settings.CA != "" {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM([]byte(settings.CA)) {
			return nil, errors.New("tls.ca has no certificate in PEM; did you mean file:PATH?")
		}
	}
	if settings.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(settings.Cert), []byte(settings.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
