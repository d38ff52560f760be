package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/drover-run/drover/configs"
)

// requireAuth passes on requests with the token, or with a certificate that client_ca has signed. It
// refuses those of browsers: a page of another site can make a browser send requests here. Such a
// request has a header with its origin. Without TLS, its host may also be a name that an attacker
// resolves to this address; with TLS, the certificate would not match.
func requireAuth(admin configs.Admin, next http.Handler) http.Handler {
	if admin.Listen == "unix" {
		return next
	}
	want := sha256.Sum256([]byte("Bearer " + string(admin.Token)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		certified := r.TLS != nil && len(r.TLS.VerifiedChains) > 0
		authorized := admin.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
		switch {
		case r.Header.Get("Origin") != "" || r.TLS == nil && !isKnownHost(admin, r.Host):
			WriteError(w, http.StatusForbidden, "requests from browsers are refused")
		case !certified && !authorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
			WriteError(w, http.StatusUnauthorized, "%s", credentialsHint(admin))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// credentialsHint returns the credentials that a request lacks.
func credentialsHint(admin configs.Admin) string {
	token, certificate := "the admin token: Authorization: Bearer TOKEN", "a certificate signed by admin.tls.client_ca"
	switch {
	case admin.TLS == nil || admin.TLS.ClientCA == "":
		return "this needs " + token
	case admin.Token == "":
		return "this needs " + certificate
	}
	return "this needs " + token + ", or " + certificate
}

// isKnownHost reports whether the Host of a request is an address, localhost, or the host of
// admin.listen.
func isKnownHost(admin configs.Admin, host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	own, _, _ := net.SplitHostPort(admin.Listen) // checked before
	return net.ParseIP(strings.Trim(host, "[]")) != nil || host == "localhost" || host == own && own != ""
}

// serverTLS returns the TLS configuration of the server; nil without TLS. The handshake succeeds
// without a certificate of the client, so that the answer can report that it is missing.
func serverTLS(admin configs.Admin) (*tls.Config, error) {
	if admin.TLS == nil {
		return nil, nil
	}
	pair, err := tls.X509KeyPair([]byte(admin.TLS.Cert), []byte(admin.TLS.Key))
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if admin.TLS.ClientCA != "" {
		out.ClientAuth, out.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
		out.ClientCAs.AppendCertsFromPEM([]byte(admin.TLS.ClientCA)) // checked before
	}
	return out, nil
}
