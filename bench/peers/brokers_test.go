package peers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestWaitForRecovery reads the last line of postmaster.pid, as PostgreSQL writes it.
func TestWaitForRecovery(t *testing.T) {
	data := t.TempDir()
	write := func(status string) {
		t.Helper()
		text := "4711\n/data\n1764600000\n5432\n/data\n127.0.0.1\n  1234  5\n" + status + "\n"
		if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	write("ready   ")
	if err := waitForRecovery(ctx, data); err != nil {
		t.Error(err)
	}
	write("starting")
	cancel()
	if err := waitForRecovery(ctx, data); !errors.Is(err, context.Canceled) {
		t.Errorf("while it starts: %v", err)
	}
}
