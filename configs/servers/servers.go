// Package servers has the settings of the servers that a daemon runs: for operators, for health
// checks, and for HTTP functions.
package servers

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

// Admin is the server for commands and operators.
type Admin struct {
	Listen string        `yaml:"listen" default:"unix" desc:"unix is a socket in data_dir that only its owner can open; HOST:PORT needs a token, or tls with client_ca; off disables the server, and with it commands such as drover status"`
	Token  values.Secret `yaml:"token" desc:"with HOST:PORT: token that requests must send as Authorization: Bearer TOKEN; usually file:PATH"`
	TLS    *AdminTLS     `yaml:"tls" desc:"with HOST:PORT: TLS settings of the server"`
	Client *values.TLS   `yaml:"client" desc:"TLS settings of commands such as drover status; without ca they trust the server's own certificate"`
	Pprof  bool          `yaml:"pprof" default:"false" desc:"serve Go's profiles below /debug/pprof/"`
}

// AdminTLS is the server side of TLS. All are PEM texts, usually file:PATH.
type AdminTLS struct {
	Cert     string        `yaml:"cert" desc:"the server's certificate with its intermediates"`
	Key      values.Secret `yaml:"key" desc:"the certificate's key"`
	ClientCA string        `yaml:"client_ca" desc:"root certificates of client certificates; a client with a valid certificate needs no token"`
}

// Probes is a server for clients without a token, such as a kubelet.
type Probes struct {
	Listen  string `yaml:"listen" desc:"HOST:PORT, such as :8081, for /healthz and /readyz; off by default"`
	Metrics bool   `yaml:"metrics" default:"false" desc:"also serve /metrics"`
}

// shortestToken is the least number of characters of a token: 16 characters of base64 are 96 bits.
const shortestToken = 16

// Bits of a file's mode: readable by all, or by its group.
const (
	readableByAll   = 0o004
	readableByGroup = 0o040
)

// CompleteServer completes and checks all keys.
func (a *Admin) CompleteServer(x *problems.Source) {
	if a.TLS != nil && *a.TLS == (AdminTLS{}) {
		a.TLS = nil
	}
	if a.Client != nil && *a.Client == (values.TLS{}) {
		a.Client = nil
	}
	switch {
	case a.Listen == "unix" || a.Listen == "off":
		if a.Token != "" {
			x.Wrong("admin.token", "it requires listen: HOST:PORT; a unix socket is protected by its mode")
		}
		if a.TLS != nil {
			x.Wrong("admin.tls", "it requires listen: HOST:PORT; a unix socket is protected by its mode")
		}
	case !validListen(a.Listen):
		x.Wrong("admin.listen", "%q is neither unix, nor off, nor HOST:PORT", a.Listen)
	case a.Token == "" && (a.TLS == nil || a.TLS.ClientCA == ""):
		x.Wrong("admin.listen", "on %s any local user, or even other machines, could use it; set token, usually file:PATH, or tls with client_ca, or listen on unix", a.Listen)
	case a.Token != "" && len(a.Token) < shortestToken:
		x.Wrong("admin.token", "it has fewer than %d characters; use the output of `openssl rand -hex 16`", shortestToken)
	case a.TLS == nil && !isLoopback(a.Listen):
		x.Warn("admin: the token is sent to %s unencrypted; set tls, or listen on 127.0.0.1", a.Listen)
	}
	a.checkTLS(x)
	for _, path := range []string{"admin.token", "admin.tls.key", "admin.client.key"} {
		keptFromOthers(x, path)
	}
}

// CheckListen checks the address of the server.
func (p Probes) CheckListen(x *problems.Source) {
	if p.Listen != "" && !validListen(p.Listen) {
		x.Wrong("probes.listen", "%q is not HOST:PORT; write :8081, for example", p.Listen)
	}
	if p.Metrics && p.Listen == "" {
		x.Wrong("probes.metrics", "it needs probes.listen, such as :8081")
	}
}

// checkTLS checks the certificates, because a TLS client gets little information if they are wrong.
func (a *Admin) checkTLS(x *problems.Source) {
	if t := a.TLS; t != nil {
		if _, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key)); err != nil {
			x.Wrong("admin.tls", "cert and key: %v; they are PEM texts, usually file:PATH", err)
		}
		if t.ClientCA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(t.ClientCA)) {
			x.Wrong("admin.tls.client_ca", "it has no certificate in PEM; did you mean file:PATH?")
		}
	}
	if a.Client != nil && a.TLS == nil {
		x.Wrong("admin.client", "it requires admin.tls")
	}
	a.checkClientTLS(x)
}

// CompleteClient completes and checks the keys that commands read.
func (a *Admin) CompleteClient(x *problems.Source) {
	if a.Client != nil && *a.Client == (values.TLS{}) {
		a.Client = nil
	}
	if l := a.Listen; l != "unix" && l != "off" && !validListen(l) {
		x.Wrong("admin.listen", "%q is neither unix, nor off, nor HOST:PORT", l)
	}
	a.checkClientTLS(x)
	keptFromOthers(x, "admin.token")
	keptFromOthers(x, "admin.client.key")
}

// checkClientTLS checks the certificates of commands.
func (a *Admin) checkClientTLS(x *problems.Source) {
	c := a.Client
	if c == nil {
		return
	}
	if c.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CA)) {
		x.Wrong("admin.client.ca", "it has no certificate in PEM; did you mean file:PATH?")
	}
	if c.Cert == "" && c.Key == "" {
		return
	}
	if _, err := tls.X509KeyPair([]byte(c.Cert), []byte(c.Key)); err != nil {
		x.Wrong("admin.client", "cert and key: %v; they are PEM texts, usually file:PATH", err)
	}
}

// keptFromOthers refuses a secret's file that all users may read. A group may read it: the file may
// be root's, and the group the daemon's, as for systemd's credentials. Secrets that Kubernetes
// mounts have mode 0644, in a container with only the daemon.
func keptFromOthers(x *problems.Source, path string) {
	file := x.Files[path]
	if file == "" {
		return
	}
	info, err := os.Stat(file)
	if err != nil || mountedByKubernetes(file) {
		return
	}
	mode := info.Mode().Perm()
	stat, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case mode&readableByAll != 0:
		x.Wrong(path, "all users of this machine can read the file %s (mode %04o); chmod 600 it", file, mode)
	case mode&readableByGroup != 0 && stat != nil && stat.Uid != 0:
		x.Warn("%s: its group can read the file %s (mode %04o); chmod 600 it", path, file, mode)
	}
}

// mountedByKubernetes reports whether a file is in a volume of a Kubernetes secret: a symbolic link
// through the link ..data, which is replaced when the secret changes.
func mountedByKubernetes(file string) bool {
	to, err := os.Readlink(file)
	return err == nil && strings.HasPrefix(to, "..data/")
}

// isLoopback reports whether an address can be reached only from this machine.
func isLoopback(listen string) bool {
	host, _, _ := net.SplitHostPort(listen) // checked before
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func portOf(listen string) string {
	_, port, _ := net.SplitHostPort(listen) // checked before
	return port
}

func validListen(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n <= 65535
}
