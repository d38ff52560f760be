package cli

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The notifications of systemd are ready, alive and stopping. Workers do not inherit its
// variables.
func TestSystemdIsTold(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "import os\nprint('inherited:', [k for k in os.environ if k.startswith(('NOTIFY', 'WATCHDOG'))], flush=True)\ndef greet(body): pass\n"})
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
	if !strings.Contains(out.String(), "inherited: []") {
		t.Errorf("the worker has variables of systemd:\n%s", out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
