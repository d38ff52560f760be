package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

type idleCommand struct {
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
func (c *idleCommand) Run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, file := filepath.Join(dir, "drover"), filepath.Join(dir, "drover.yaml")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/drover-run/drover").CombinedOutput(); err != nil {
		return fmt.Errorf("building drover: %w\n%s", err, out)
	}
	for name, content := range map[string][]byte{file: []byte(idleConfig), filepath.Join(dir, "function_app.py"): app} {
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
	if err := pause(ctx, 5*time.Second); err != nil {
		return err
	}
	before, _, err := usage(cmd.Process.Pid)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := pause(ctx, c.For); err != nil {
		return err
	}
	after, rss, err := usage(cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("idle daemon with the embedded server, over %v: %.2f %% of a core, %.1f MB resident\n",
		c.For, 100*(after-before).Seconds()/time.Since(start).Seconds(), float64(rss)/1e6)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// usage returns the processor time and the resident bytes of a process (Linux).
func usage(pid int) (cpu time.Duration, rss int64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in parentheses, may hold anything; utime and stime are the 14th
	// and 15th field, in ticks of 10 ms, the resident pages the 24th (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var values [3]int64
	for i, at := range []int{14, 15, 24} {
		if values[i], err = strconv.ParseInt(fields[at-3], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("reading /proc/%d/stat: %w", pid, err)
		}
	}
	return time.Duration(values[0]+values[1]) * 10 * time.Millisecond, values[2] * int64(os.Getpagesize()), nil
}
