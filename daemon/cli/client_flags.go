package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
)

// clientFlags are those of a command that talks to a running daemon. It needs none of
// the daemon's secrets.
type clientFlags struct {
	configFlag
	DataDir string `name:"data-dir" placeholder:"DIR" help:"Find the daemon by its data_dir, without reading a configuration."`
}

// loadClient reads what the command must know to reach the daemon, and nothing else.
func (f clientFlags) loadClient(ctx context.Context, std *IO) (*configs.Config, error) {
	if f.DataDir == "" {
		return configs.LoadClient(ctx, f.Config, std.Env)
	}
	dir, err := filepath.Abs(f.DataDir)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", f.DataDir, err)
	}
	cfg := configs.New()
	cfg.DataDir = dir
	return cfg, nil
}

// newClient returns a client of the daemon.
func (f clientFlags) newClient(ctx context.Context, std *IO) (*admin.Client, error) {
	cfg, err := f.loadClient(ctx, std)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(cfg)
}

// postTo sends a request without a body to the daemon.
func (f clientFlags) postTo(ctx context.Context, std *IO, path string) error {
	client, err := f.newClient(ctx, std)
	if err != nil {
		return err
	}
	return client.Post(ctx, path)
}
