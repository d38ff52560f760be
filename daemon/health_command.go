package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
)

// healthCommand is `drover health`, for those who can run a program and not ask a
// port: the health check of a container, which has neither a shell nor curl.
type healthCommand struct {
	configFlag
	DataDir string `name:"data-dir" placeholder:"DIR" help:"Find the daemon by its data directory instead of a configuration. Needs no secrets, and no valid configuration file."`
	Live    bool   `help:"Check only that the process responds, not that it receives messages."`
}

func (*healthCommand) Help() string {
	return `Examples:

    drover health
    drover health --data-dir /var/lib/drover
    drover health --live
`
}

func (c *healthCommand) Run(ctx context.Context, std *IO) error {
	client, err := c.client(std.Env)
	if err != nil {
		return err
	}
	path := "/readyz"
	if c.Live {
		path = "/healthz"
	}
	health, err := client.health(ctx, path)
	if err != nil {
		return err
	}
	if health.Status != "ok" {
		return errors.New(term.Printable(health.Status + ": " + strings.Join(health.Reasons, "; ")))
	}
	_, err = fmt.Fprintln(std.Out, term.Printable(strings.Join(append([]string{"ok"}, health.Notes...), "\n  - ")))
	return err
}

func (c *healthCommand) client(env configs.Env) (*adminClient, error) {
	if c.DataDir != "" {
		dir, err := filepath.Abs(c.DataDir)
		if err != nil {
			return nil, fmt.Errorf("finding %s: %w", c.DataDir, err)
		}
		return socketClient(adminSocket(dir)), nil
	}
	cfg, err := configs.Load(c.Config, env)
	if err != nil {
		return nil, err
	}
	if cfg.Admin.Listen == "off" && cfg.Probes.Listen != "" {
		return probesClient(cfg.Probes.Listen)
	}
	return newAdminClient(cfg)
}
