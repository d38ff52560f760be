package speed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/bench/proc"
	"github.com/drover-run/drover/bench/rig"
)

type IdleCommand struct {
	For time.Duration `default:"30s" help:"How long to look, after five seconds to settle."`
}

const idleConfig = `version: 1
functions:
  noop:
    trigger: {nats: {}}
    handler: {python: {path: ., processes: 1}}
`

// Run starts the built command with the embedded server and one Python function,
// sends it nothing, and reads what the daemon's process used from /proc.
func (c *IdleCommand) Run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, file := filepath.Join(dir, "drover"), filepath.Join(dir, "drover.yaml")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/drover-run/drover").CombinedOutput(); err != nil {
		return fmt.Errorf("building drover: %w\n%s", err, out)
	}
	for name, content := range map[string][]byte{file: []byte(idleConfig), filepath.Join(dir, "function_app.py"): rig.PythonApp} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, binary, "run", file)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait())
	}()
	if err := rig.Pause(ctx, 5*time.Second); err != nil {
		return err
	}
	before, _, err := proc.Stat(cmd.Process.Pid)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := rig.Pause(ctx, c.For); err != nil {
		return err
	}
	after, rss, err := proc.Stat(cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("idle daemon with the embedded server, over %v: %.2f %% of a core, %.1f MB resident\n",
		c.For, 100*(after-before).Seconds()/time.Since(start).Seconds(), float64(rss)/1e6)
	return nil
}
