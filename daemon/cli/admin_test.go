package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// adminDaemon runs a daemon with one Go function and a queue in memory.
func adminDaemon(t *testing.T, change func(cfg *configs.Config)) (*daemon.Daemon, *memory.Queue, *configs.Config) {
	t.Helper()
	return runsFunc(t, func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, change)
}

// runsFunc runs a daemon with one Go function, f.
func runsFunc(t *testing.T, f handlers.Func, change func(cfg *configs.Config)) (*daemon.Daemon, *memory.Queue, *configs.Config) {
	t.Helper()
	queue := memory.New(time.Hour)
	t.Cleanup(queue.Close)
	d, cfg := daemonOn(t, queue.Trigger(), f, change)
	return d, queue, cfg
}

// daemonOn runs a daemon whose messages come from a trigger.
func daemonOn(t *testing.T, from triggers.Trigger, f handlers.Func, change func(cfg *configs.Config)) (*daemon.Daemon, *configs.Config) {
	t.Helper()
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	cfg.Functions = map[string]configs.Function{"f": {Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}}
	if change != nil {
		change(cfg)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, stop := context.WithCancel(context.Background())
	d := daemon.New(cfg, daemon.WithTrigger("f", from), daemon.WithReady(func() { close(ready) }), daemon.WithFuncs(handlers.Funcs{"f": f}))
	go func() { ended <- d.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return d, cfg
}

func TestStatusCommand(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "def greet(body): pass\n"})
	file := filepath.Join(dir, "drover.yaml")
	if status, _, errs := command(t.Context(), nil, nil, "status", "-c", file); status != ExitFailed || !strings.Contains(errs, "no daemon of this configuration is running here") {
		t.Errorf("without a daemon: status %d, %s", status, errs)
	}
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "\"msg\":\"running\"")
	status, text, errs := command(t.Context(), nil, nil, "status", "-c", file)
	if status != ExitOK || !strings.Contains(text, "running, for ") || !strings.Contains(text, "greet") {
		t.Errorf("status %d\n%s%s", status, text, errs)
	}
	status, text, errs = command(t.Context(), nil, nil, "status", "-c", file, "--json")
	var s daemon.StatusReport
	if err := json.Unmarshal([]byte(text), &s); status != ExitOK || err != nil || s.Functions[0].Workers != 1 {
		t.Errorf("status %d, %v\n%s%s", status, err, text, errs)
	}
	// On a terminal the command continues until its context ends.
	ctx, cancel := context.WithCancel(t.Context())
	live := newPrinted()
	ended := make(chan int, 1)
	go func() {
		ended <- Command(ctx, []string{"status", "-c", file, "--every", "10ms"}, &IO{Out: live, Err: live, OutIsTerminal: true, Env: os.LookupEnv, Environ: os.Environ})
	}()
	live.WaitFor(t, "\x1b[J")
	cancel()
	if status := <-ended; status != ExitOK {
		t.Errorf("the live table ended with status %d\n%s", status, live)
	}
	if status, _, errs := command(t.Context(), nil, nil, "status", "-c", file, "--every", "0s"); status != ExitUsage {
		t.Errorf("--every 0s: status %d, %s", status, errs)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestWhatComesFromOutsideIsPrintable(t *testing.T) {
	text := statustext.Status{Now: daemon.StatusReport{Phase: "running", Instances: &daemon.InstancesStatus{Failing: "a\x1b[2Jb\u009b"}}}.Text()
	if bytes.ContainsAny([]byte(text), "\x1b") || !strings.Contains(text, "a?[2Jb?") {
		t.Errorf("%q", text)
	}
}

// A daemon whose token is missing, empty, or readable for everybody does not start.
func TestAdminTokenFile(t *testing.T) {
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
		status     int
	}{
		{"missing", "", 0, "cannot be read: no such file or directory", ExitFailed},
		{"empty", "\n", 0o600, "set token", ExitFailed},
		{"short", "secret\n", 0o600, "fewer than 16 characters", ExitFailed},
		{"world-readable", "0123456789abcdef0123\n", 0o644, "(mode 0644); chmod 600 it", ExitFailed},
		{"right", "0123456789abcdef0123\n", 0o600, "no daemon of this configuration is running here", ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, map[string]string{
				"drover.yaml":         "version: 1\nadmin: {listen: \"" + freePort(t) + "\", token: \"file:admin.token\"}\nfunctions: {greet: {trigger: {nats: {}}, handler: {python: {path: app}}}}\n",
				"app/function_app.py": "def greet(body): pass\n",
			})
			if c.mode != 0 {
				file := filepath.Join(dir, "admin.token")
				if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(file, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"run"}
			if c.name == "right" {
				args = []string{"status"}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			status, _, errs := command(ctx, nil, nil, append(args, "-c", filepath.Join(dir, "drover.yaml"))...)
			if status != c.status || !strings.Contains(errs, c.want) || strings.Contains(errs, "0123456789abcdef") {
				t.Errorf("status %d\n%s; want %s", status, errs, c.want)
			}
		})
	}
}
