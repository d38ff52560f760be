package daemon

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// This file is who may use the admin server.

// guarded lets only those in who have the token, where there is one. A browser
// that was led here by a page of somebody else's names its origin, or a host that
// is not ours.
func (d *Daemon) guarded(next http.Handler) http.Handler {
	if d.cfg.Admin.Listen == "unix" {
		return next
	}
	want := sha256.Sum256([]byte("Bearer " + string(d.cfg.Admin.Token)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		switch {
		case r.Header.Get("Origin") != "" || !d.knownHost(r.Host):
			fail(w, http.StatusForbidden, "requests of browsers are not answered here")
		case subtle.ConstantTimeCompare(got[:], want[:]) != 1:
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, http.StatusUnauthorized, "this needs the admin token: Authorization: Bearer TOKEN")
		default:
			next.ServeHTTP(w, r)
		}
	})
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
