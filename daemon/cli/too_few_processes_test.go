package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestTooFewProcesses starts the daemon as a user with a limit of 40 processes and threads. Go
// would end it, or its reaper, with a crash, so it refuses to start and names the limit.
func TestTooFewProcesses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the processes of a user are counted on Linux alone")
	}
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("prlimit is missing; run: apt-get install util-linux")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{
		"app/function_app.py": "def f(m):\n    pass\n",
		"drover.yaml":         "data_dir: ./data\nfunctions:\n  f: {trigger: {nats: {}}, handler: {python: {path: ./app}}}\n",
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, prlimit, "--nproc=40", path, "run", filepath.Join(dir, "drover.yaml"))
	if os.Geteuid() == 0 { // the limit does not apply to root
		const nobody = 65534
		for _, own := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "app"), filepath.Join(dir, "drover.yaml"), filepath.Dir(path)} {
			if err := os.Chmod(own, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != ExitStart || !strings.Contains(string(out), "cannot start: ulimit -u (RLIMIT_NPROC)") {
		t.Errorf("it does not name the limit: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("it has started its server before it looks")
	}
}
