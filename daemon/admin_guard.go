package daemon

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/tlsconfig"
)

// This file is who may use the admin server.

// guarded lets only those in who have the token, or a certificate that client_ca
// vouches for. A browser that was led here by a page of somebody else's names its
// origin, or, where no certificate tells it that this is the wrong place, a host
// that is not ours.
func (d *Daemon) guarded(next http.Handler) http.Handler {
	admin := d.cfg.Admin
	if admin.Listen == "unix" {
		return next
	}
	want := sha256.Sum256([]byte("Bearer " + string(admin.Token)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		certified := r.TLS != nil && len(r.TLS.VerifiedChains) > 0
		bears := admin.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
		switch {
		case r.Header.Get("Origin") != "" || r.TLS == nil && !d.knownHost(r.Host):
			refuse(w, http.StatusForbidden, "requests of browsers are not answered here")
		case !certified && !bears:
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "%s", wanted(admin))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// wanted says what a request lacks.
func wanted(admin configs.Admin) string {
	token, certificate := "the admin token: Authorization: Bearer TOKEN", "a certificate that admin.tls.client_ca vouches for"
	switch {
	case admin.TLS == nil || admin.TLS.ClientCA == "":
		return "this needs " + token
	case admin.Token == "":
		return "this needs " + certificate
	}
	return "this needs " + token + ", or " + certificate
}

// adminTLS is how the admin server is reached over TLS; nil where it is not. Without a
// certificate of a client the handshake goes on: the answer can say what is missing.
func adminTLS(admin configs.Admin) (*tls.Config, error) {
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

// adminClientTLS is how a command reaches a server with TLS. Without a ca it trusts
// the very certificate that the server has, which the same configuration names.
func adminClientTLS(admin configs.Admin, host string) (*tls.Config, error) {
	client := configs.TLS{}
	if admin.Client != nil {
		client = *admin.Client
	}
	pinned := client.CA == ""
	if pinned {
		client.CA = admin.TLS.Cert
	}
	out, err := tlsconfig.ForClient(&client)
	if err != nil || !pinned || client.ServerName != "" {
		return out, err
	}
	block, _ := pem.Decode([]byte(admin.TLS.Cert))
	if block == nil {
		return nil, errors.New("admin.tls.cert: it has no certificate in PEM; did you mean file:PATH?")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin.tls.cert: %w", err)
	}
	if leaf.VerifyHostname(host) != nil { // localhost, which few certificates name
		switch {
		case len(leaf.DNSNames) > 0:
			out.ServerName = leaf.DNSNames[0]
		case len(leaf.IPAddresses) > 0:
			out.ServerName = leaf.IPAddresses[0].String()
		}
	}
	return out, nil
}

// knownHost reports whether a request's Host is an address, localhost, or what the
// configuration calls this machine: not a name that somebody made point here.
func (d *Daemon) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	own, _, _ := net.SplitHostPort(d.cfg.Admin.Listen) // checked before
	return net.ParseIP(strings.Trim(host, "[]")) != nil || host == "localhost" || host == own && own != ""
}
