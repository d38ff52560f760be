package cli

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// escapes are the codes of colors.
var escapes = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// On a terminal the log is human-readable, from the start to the end of the last message.
func TestLogOnATerminal(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": `
import json, logging, os, time
HERE = os.path.dirname(os.path.abspath(__file__))
def greet(message):
    if message.text() == "slow":
        logging.info("has begun")
        while not os.path.exists(HERE + "/go"): time.sleep(0.01)
        return
    json.loads(message.text())
`})
	file := filepath.Join(dir, "drover.yaml")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "run")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	out, ended := newPrinted(), make(chan error, 1)
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(out, terminal) // it fails when the terminal is closed
		close(copied)
	}()
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = terminal.Close()
	})
	send := func(body string) {
		t.Helper()
		if status, _, errs := command(t.Context(), nil, nil, "send", "greet", "-c", file, "--body", body); status != ExitOK {
			t.Fatal(errs)
		}
	}

	out.WaitFor(t, "drover runs 1 function of drover.yaml:")
	out.WaitFor(t, "drover send greet --body hello")
	out.WaitFor(t, "Ctrl-C stops, and waits up to ")
	send(`{"id": 1}`)
	out.WaitFor(t, "done  ")
	out.WaitFor(t, "message=greet:1 attempt=1")
	send("{")
	out.WaitFor(t, `... 3 frames of json`)
	out.WaitFor(t, "attempt failed; will be tried again: JSONDecodeError")
	// The width follows the terminal.
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	wide := len(out.String())
	send("slow")
	out.WaitFor(t, "has begun")
	if _, err := terminal.WriteString("\x03"); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	out.WaitFor(t, "stopping: receiving has ended")
	if err := os.WriteFile(filepath.Join(dir, "app", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	<-copied

	text := out.String()
	plain := escapes.ReplaceAllString(text, "")
	if plain == text {
		t.Errorf("no colors:\n%s", text)
	}
	for _, want := range []string{
		"app app  ./app, run by /", "timeout 5m, ", "drover status\r\n", `      File "app/function_app.py", line 9, in greet`,
		"stopped; all messages in flight", "done=1",
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("it lacks %q:\n%s", want, plain)
		}
	}
	narrow := escapes.ReplaceAllString(text[wide:], "")
	for _, line := range strings.FieldsFunc(narrow, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if len(line) > 60 && !strings.Contains(line, "Error") {
			t.Errorf("a line is wider than the terminal: %q", line)
		}
	}
}
