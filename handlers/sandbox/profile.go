package sandbox

import (
	"os"
	"path/filepath"
	"strings"
)

// systemRead is what programs need of a system, and may read in the strict sandbox;
// what is not there is left out. Of /etc it is these alone: there are secrets in it.
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

// systemDevices may be written, too.
var systemDevices = []string{"/dev/null", "/dev/zero", "/dev/full"}

// systemFiles is systemRead as it is on this machine: the name servers' file is
// replaced while workers run, and then only its directory leads to the new one; and
// certificates may be elsewhere.
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
