package daemon

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// leavingApp leaves processes behind when it is loaded: in the worker's group, in its own session,
// and one that has daemonized with a double fork.
const leavingApp = `
import os, subprocess, time
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["sleep", "1000"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
def greet(message): pass
`

// below counts the processes with a word in their environment: a daemon that was started with it,
// and its descendants, without the reaper.
func below(t *testing.T, word string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err == nil && bytes.Contains(environ, []byte(word+"\x00")) {
			n++
		}
	}
	return n
}

func TestNothingOutlivesADaemonThatIsKilled(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": leavingApp})
	word := "TEST_OF_DROVER=" + dir
	await := func(n int) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); below(t, word) != n; <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("%d processes, want %d", below(t, word), n)
			}
		}
	}
	cmd := exec.Command(path, "run", filepath.Join(dir, "drover.yaml"))
	cmd.Env = append(os.Environ(), word)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	await(5) // the daemon, its worker, and the processes that the worker left behind
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await(0)
}
