package rig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
)

// StartDaemon is a daemon in this process.
func StartDaemon(ctx context.Context, connection string, funcs handlers.Funcs, functions map[string]configs.Function) (d *daemon.Daemon, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, nil, err
	}
	cfg := configs.New()
	cfg.DataDir = filepath.Join(dir, "data")
	cfg.Connections = map[string]configs.Connection{"source": {ConnectionString: configs.Secret(connection)}}
	cfg.Functions = functions
	running, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	d = daemon.New(cfg, daemon.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))),
		daemon.WithEnv(os.LookupEnv, os.Environ), daemon.WithFuncs(funcs), daemon.WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(running) }()
	stop = func() error {
		cancel()
		return errors.Join(<-ended, os.RemoveAll(dir))
	}
	select {
	case <-ready:
		return d, stop, nil
	case err := <-ended:
		ended <- nil
		return nil, nil, errors.Join(err, stop())
	}
}

// BuildDrover makes the command in its own directory.
func BuildDrover(ctx context.Context) (dir, binary string, err error) {
	if dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return "", "", err
	}
	binary = filepath.Join(dir, "drover")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/drover-run/drover").CombinedOutput(); err != nil {
		return "", "", errors.Join(fmt.Errorf("building drover: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return dir, binary, nil
}
