package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// LoadClient reads the keys that a command needs, even if the rest of the file is incomplete, and
// reports errors in them.
func TestLoadClient(t *testing.T) {
	t.Parallel()
	const rest = "connections: {bus: {connection_string: \"${MISSING}\"}, nats: {nats: [x], token: file:gone}}\nfunctions: {}\n"
	for name, c := range map[string]struct{ text, want string }{
		"defaults":     {"", ""},
		"token":        {"admin: {listen: 127.0.0.1:8080, token: 0123456789abcdef}\n", ""},
		"server key":   {"admin: {listen: 127.0.0.1:8080, tls: {cert: C, key: file:gone, client_ca: file:gone}}\n", ""},
		"its own":      {"admin: {listen: 127.0.0.1:8080, token: file:gone}\n", "admin.token"},
		"listen":       {"admin: {listen: nowhere}\n", "is neither unix, nor off, nor HOST:PORT"},
		"probes":       {"probes: {listen: nowhere}\n", "write :8081"},
		"client":       {"admin: {client: {cert: a, key: b}}\n", "admin.client"},
		"unknown key":  {"admin: {listn: unix}\n", "did you mean listen?"},
		"no key":       {"admn: {}\n", "did you mean admin?"},
		"invalid YAML": {"admin: {\n", "invalid YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "drover.yaml")
			if err := os.WriteFile(path, []byte(c.text+rest), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := LoadClient(t.Context(), path, func(string) (string, bool) { return "", false })
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && cfg.DataDir != filepath.Join(dir, ".drover"):
				t.Errorf("data_dir is %s", cfg.DataDir)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
