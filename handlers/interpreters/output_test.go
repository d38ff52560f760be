package interpreters

import (
	"os/exec"
	"strings"
	"testing"
)

// A probe succeeds even if it leaves behind a child process that holds its output. The child is killed.
func TestOutputOfAProbeThatLeavesAProcess(t *testing.T) {
	out, err := commandOutput(t.Context(), "/bin/sh", "-c", "sleep 1000 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	for {
		state, _ := exec.CommandContext(t.Context(), "ps", "-o", "stat=", "-p", strings.TrimSpace(string(out))).Output() // an error is not a process
		if len(state) == 0 || state[0] == 'Z' {
			return
		}
	}
}

func TestOutputOfAProbeThatFails(t *testing.T) {
	if out, err := commandOutput(t.Context(), "/bin/sh", "-c", "echo why; exit 3"); err == nil || string(out) != "why\n" {
		t.Errorf("%q, %v", out, err)
	}
}
