package sandbox

import (
	"os"
	"path/filepath"
	"strings"
)

// systemRead are the system paths that programs need, and may read in the strict sandbox. Missing
// ones are ignored. Of /etc, only these are readable, because it contains secrets.
var systemRead = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives",
	"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
	"/etc/passwd", "/etc/group", "/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/os-release", "/etc/mime.types",
	"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/crypto-policies",
	"/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf",
	"/etc/python", "/etc/python3", "/etc/inputrc",
	"/proc", "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage",
	"/dev/random", "/dev/urandom",
}

// systemDevices may also be written.
var systemDevices = []string{"/dev/null", "/dev/zero", "/dev/full"}

// systemFiles returns systemRead for this machine. It resolves the file of name servers: it is
// replaced while workers run, and only its directory gives access to the new one. Certificates
// may also be elsewhere.
func systemFiles() []string {
	out := systemRead
	if real, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && !strings.HasPrefix(real, "/etc/") {
		out = append(out[:len(out):len(out)], filepath.Dir(real))
	}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
		if path := os.Getenv(name); filepath.IsAbs(path) {
			out = append(out[:len(out):len(out)], path)
		}
	}
	return out
}
