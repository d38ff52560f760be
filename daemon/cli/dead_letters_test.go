package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// check names the dead-letter stream that must exist, and the command that creates it.
func TestCheckNamesTheDeadLetterStream(t *testing.T) {
	for create, want := range map[string]bool{"": true, ", create: true": false} {
		file := filepath.Join(t.TempDir(), "drover.yaml")
		text := `version: 1
connections: {c: {nats: "nats://127.0.0.1:1"}}
functions:
  ful:
    trigger: {nats: {connection: c, stream: ORDERS, subject: "orders.>", consumer: billing` + create + `}}
    handler: {exec: {command: ["true"]}}
`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, errs := command(t.Context(), nil, nil, "check", file)
		const named = "nats stream add ORDERS-DEAD --subjects 'ORDERS-DEAD.>' --storage file --defaults"
		if status != ExitOK || strings.Contains(out, named) != want {
			t.Errorf("create%s: status %d\n%s%s", create, status, out, errs)
		}
	}
}
