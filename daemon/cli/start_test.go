package cli

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// If a daemon cannot start, it reports the reason and what to do.
func TestStartsThatFail(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	const functions = "\nfunctions: {f: {trigger: {nats: {}}, handler: {exec: {command: [\"true\"]}}}}\n"
	for _, test := range []struct {
		name, config string
		status       int
		errs         []string
	}{
		{"the admin port is taken", "admin: {listen: \"TAKEN\", token: 0123456789abcdef}", ExitStart,
			[]string{"admin: ", "TAKEN", "address already in use", "does another program use it?"}},
		{"the probes' port is taken", "probes: {listen: \"TAKEN\"}", ExitStart,
			[]string{"probes: ", "TAKEN", "address already in use", "does another program use it?"}},
		{"the embedded server's port is taken", "connections: {c: {nats: embedded, listen: \"TAKEN\"}}", ExitStart,
			[]string{"the embedded NATS server: ", "TAKEN", "address already in use", "does another program use it?"}},
		{"a credential is missing", "connections: {c: {nats: \"nats://h:4222\", credentials: \"file:/nowhere/user.creds\"}}", ExitFailed,
			[]string{"drover.yaml:1:", "connections.c.credentials: the file /nowhere/user.creds cannot be read: no such file or directory"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := taken.Addr().String()
			dir := write(t, map[string]string{"drover.yaml": strings.ReplaceAll(test.config, "TAKEN", address) + functions})
			status, _, errs := command(t.Context(), nil, nil, "run", filepath.Join(dir, "drover.yaml"))
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			for _, want := range test.errs {
				if !strings.Contains(errs, strings.ReplaceAll(want, "TAKEN", address)) {
					t.Errorf("the errors lack %q:\n%s", want, errs)
				}
			}
		})
	}
}
