package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/daemon/cli/demo"
	"github.com/drover-run/drover/daemon/cli/exit"
)

type demoCommand struct {
	For      *time.Duration `help:"Send messages for this long (default: 20s; with --scale 60s)."`
	Scale    bool           `help:"Show how workers and instances follow a wave of messages."`
	Messages int            `help:"Send this many messages instead, as fast as they are handled."`
	Plain    bool           `help:"Print plain lines, even on a terminal."`
	DataDir  string         `help:"Keep the embedded server's messages in this directory (default: .drover/demo, removed after a clean end). The next demo with the same directory finishes one that was killed."`
}

func (*demoCommand) Help() string {
	return `Examples:

    drover demo
    drover demo --scale              # workers and instances follow a wave
    drover demo --messages 100000 --plain
`
}

func (c *demoCommand) Run(ctx context.Context, std *IO) error {
	if c.For != nil && *c.For <= 0 || c.Messages < 0 {
		return exit.UsageError("--for must be more than 0s, and --messages not negative")
	}
	if c.Scale && c.Messages > 0 {
		return exit.UsageError("--scale cannot be combined with --messages; use --for")
	}
	dir, remove, run := filepath.Join(".drover", "demo"), true, demo.Run
	length := 20 * time.Second
	if c.Scale {
		dir, run, length = dir+"-scale", demo.RunScale, time.Minute
	}
	if c.For == nil {
		c.For = &length
	}
	if c.DataDir != "" {
		dir, remove = c.DataDir, false
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding the demo's data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &daemon.StartError{Err: fmt.Errorf("making the demo's data directory: %w; choose another with --data-dir", err)}
	}
	all, err := run(ctx, demo.Options{
		Dir: dir, For: *c.For, Messages: c.Messages,
		Out: std.Out, Live: std.OutIsTerminal && !c.Plain,
		Env: std.Env, Environ: std.Environ, NewLog: std.logger, Daemon: std.options(),
	})
	if err == nil && !all {
		return exit.ErrReported
	}
	if err == nil && remove {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the demo's data: %w", err)
		}
	}
	return err
}
