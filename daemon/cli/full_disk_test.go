package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// If the disk under the embedded server is full, the daemon is not ready. Health, status, explain
// and the metrics report it, until there is space again: then the daemon continues by itself.
func TestAFullDiskIsSaidAndRecoversFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot mount: %v: %s", err, out)
		}
		t.Skipf("needs the right to mount: sudo go test -run TestAFullDiskIsSaidAndRecoversFrom ./daemon (%v: %s)", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	own := write(t, map[string]string{"drover.yaml": `version: 1
data_dir: ` + dir + `
log: {format: text}
connections: {embedded: {nats: embedded, max_store: 1GiB}}
functions:
  work:
    trigger: {nats: {}}
    handler: {exec: {command: ["true"]}}
`})
	file := filepath.Join(own, "drover.yaml")
	cmd, out, ended := child(t, "run", file)
	out.WaitFor(t, "msg=running")
	if status, _, errs := command(t.Context(), nil, nil, "pause", "work", "-c", file); status != ExitOK {
		t.Fatal(errs)
	}
	until(t, out, "the disk is full", func() bool {
		status, _, _ := command(t.Context(), nil, strings.NewReader(strings.Repeat("x", 1<<20)), "send", "work", "-c", file)
		return status != ExitOK
	})
	out.WaitFor(t, "the embedded server's store is off")
	for _, args := range [][]string{{"health", "-c", file}, {"status", "--once", "-c", file}, {"explain", "work", "-c", file}} {
		_, said, errs := command(t.Context(), nil, nil, args...)
		if !strings.Contains(said+errs, "free space for") {
			t.Errorf("%s says\n%s%s", args[0], said, errs)
		}
	}
	if status, _, _ := command(t.Context(), nil, nil, "health", "-c", file); status == ExitOK {
		t.Error("the daemon is healthy, with a store that is off")
	}
	if text, err := exec.Command("mount", "-o", "remount,size=128m", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	out.WaitFor(t, "the embedded server's store works again")
	until(t, out, "the daemon is ready", func() bool {
		status, _, _ := command(t.Context(), nil, nil, "health", "-c", file)
		return status == ExitOK
	})
	if status, _, errs := command(t.Context(), nil, nil, "resume", "work", "-c", file); status != ExitOK {
		t.Fatal(errs)
	}
	until(t, out, "all that was accepted is handled", func() bool {
		_, said, _ := command(t.Context(), nil, nil, "status", "--json", "-c", file)
		return strings.Contains(said, `"backlog": 0`) && strings.Contains(said, `"in_flight": 0`)
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
