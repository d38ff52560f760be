package daemon

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What systemd would be told: ready, alive, stopping; and that workers are not told
// of it.
func TestSystemdIsTold(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "import os\nprint('told:', [k for k in os.environ if k.startswith(('NOTIFY', 'WATCHDOG'))], flush=True)\ndef greet(body): pass\n"})
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "150000")
	cmd, out, ended := child(t, "run", filepath.Join(dir, "drover.yaml"))
	hear := func(part string) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 4096)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				t.Fatalf("%q was not said: %v\n%s", part, err, out)
			}
			if strings.Contains(string(buffer[:n]), part) {
				return
			}
		}
	}
	hear("READY=1")
	hear("WATCHDOG=1\nSTATUS=running: received 0, done 0, failed 0, in flight 0")
	hear("WATCHDOG=1")
	if !strings.Contains(out.String(), "told: []") {
		t.Errorf("the worker was told of systemd:\n%s", out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// The units are well formed, and leave as little as they may.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is missing: apt-get install systemd")
		}
		t.Skip("systemd-analyze is missing: apt-get install systemd")
	}
	dir := t.TempDir()
	for _, name := range []string{"drover.service", "drover@.service"} {
		text, err := os.ReadFile(filepath.Join("../deploy", name))
		if err != nil {
			t.Fatal(err)
		}
		// The program is not installed here.
		unit := strings.ReplaceAll(string(text), "/usr/local/bin/drover", "/bin/true")
		path := filepath.Join(dir, strings.Replace(name, "@", "@orders", 1))
		if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"verify", "--recursive-errors=no", path}, {"security", "--offline=true", "--threshold=20", path}} {
			if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil {
				t.Errorf("%s: systemd-analyze %v: %v\n%s", name, args, err, out)
			}
		}
	}
}
