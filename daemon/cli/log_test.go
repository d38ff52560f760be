package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const notingApp = `
import pathlib
def greet(message):
    print("got", message.text())
    pathlib.Path(__file__).with_name(message.text()).touch()
`

// A daemon continues if its log cannot be written, because the disk is full or the reader has
// gone.
func TestALogThatNobodyTakes(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("this system has no /dev/full: %v", err)
	}
	defer func() { _ = full.Close() }()
	unread, broken, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = broken.Close() }()
	if err := unread.Close(); err != nil {
		t.Fatal(err)
	}
	for name, log := range map[string]*os.File{"a full disk": full, "a broken pipe": broken} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": notingApp})
			file := filepath.Join(dir, "drover.yaml")
			path, err := binary()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(path, "run", file)
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(patience); ; <-tick.C {
				if status, _, _ := command(t.Context(), nil, nil, "health", "-c", file); status == ExitOK {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("it does not come up")
				}
			}
			for _, body := range []string{"one", "two"} {
				if status, _, errs := command(t.Context(), nil, nil, "send", "greet", "-c", file, "--body", body); status != ExitOK {
					t.Fatal(errs)
				}
				for deadline := time.Now().Add(patience); ; <-tick.C {
					if _, err := os.Stat(filepath.Join(dir, "app", body)); err == nil {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("message %s is not handled", body)
					}
				}
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if status := waitFor(t, ended, newPrinted()); status != ExitOK {
				t.Errorf("status %d", status)
			}
		})
	}
}

const hostileApp = `
import sys
def greet(message):
    sys.stdout.buffer.write(message.body + b"\n")
    sys.stdout.buffer.flush()
    print(message.attributes.get("who"), file=sys.stderr)
    raise ValueError(message.body.decode("utf-8", "replace"))
`

// Texts from a message, in its body, its attributes, its ID, or in an exception, cannot move the
// cursor or start a line, neither in the text log nor in the JSON log.
func TestAHostileMessageInTheLog(t *testing.T) {
	t.Parallel()
	const hostile = "\x1b[2J\x1b]0;owned\x07\u009b31m\x9b\r\u202e{\"level\":\"ERROR\"}"
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			config := strings.Replace(pythonConfig, "log: {level: debug}", "log: {level: debug, format: "+format+"}", 1)
			dir := write(t, map[string]string{"drover.yaml": strings.Replace(config, "max_attempts: 2", "max_attempts: 1", 1), "app/function_app.py": hostileApp})
			file := filepath.Join(dir, "drover.yaml")
			out, stop := startCommand(t, "run", file)
			out.WaitFor(t, "running")
			status, _, errs := command(t.Context(), nil, strings.NewReader(hostile+"\nlevel=ERROR msg=forged"), "send", "greet", "-c", file,
				"-H", "who="+strings.NewReplacer("\r", "", "\x9b", "").Replace(hostile), "-H", "Nats-Msg-Id=\x1b[31mid")
			if status != ExitOK {
				t.Fatal(errs)
			}
			out.WaitFor(t, "failed at its only attempt")
			if status := stop(); status != ExitOK {
				t.Errorf("status %d", status)
			}
			text := out.String()
			if !strings.Contains(text, "owned") {
				t.Errorf("the hostile text did not come this far:\n%q", text)
			}
			for _, what := range []string{"\x1b", "\x07", "\r", "\x9b"} {
				if format == "json" && what == "\x9b" {
					continue // JSON is UTF-8, in which this byte may be part of a character
				}
				if strings.Contains(text, what) {
					t.Errorf("the log has a raw %q:\n%q", what, text)
				}
			}
			for line := range strings.Lines(text) {
				var entry struct{ Time, Msg string }
				forged := !strings.HasPrefix(line, "time=")
				if format == "json" {
					forged = json.Unmarshal([]byte(line), &entry) != nil || entry.Time == ""
				}
				if forged {
					t.Errorf("this line is not drover's: %q", line)
				}
			}
		})
	}
}

// Errors of code that does not load are made safe, too.
func TestAHostileExceptionOnTheTerminal(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "raise ValueError('\\x1b[2J' + chr(0x9b) + 'owned')\n"})
	status, _, errs := command(t.Context(), nil, nil, "run", filepath.Join(dir, "drover.yaml"))
	_, said, found := strings.Cut(errs, "drover: cannot start")
	if status != ExitCode || !found || !strings.Contains(said, "owned") || strings.ContainsAny(said, "\x1b\u009b") {
		t.Errorf("status %d, %q", status, errs)
	}
}
