package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

// healthCommand is `drover health`, for those who can run a program and not ask a
// port: the health check of a container, which has neither a shell nor curl.
type healthCommand struct {
	clientFlags
	Live bool `help:"Check only that the process responds, not that it receives messages."`
}

func (*healthCommand) Help() string {
	return `Examples:

    drover health
    drover health --data-dir /var/lib/drover
    drover health --live
`
}

func (c *healthCommand) Run(ctx context.Context, std *IO) error {
	client, err := c.healthClient(ctx, std)
	if err != nil {
		return err
	}
	path := api.ReadyPath
	if c.Live {
		path = api.HealthPath
	}
	health, err := client.GetHealth(ctx, path)
	if err != nil {
		return err
	}
	if health.Status != "ok" {
		return errors.New(term.Printable(health.Status + ": " + strings.Join(health.Reasons, "; ")))
	}
	_, err = fmt.Fprintln(std.Out, term.Printable(strings.Join(append([]string{"ok"}, health.Notes...), "\n  - ")))
	return err
}

// healthClient returns the client of the admin server or, where that is off, of the probes.
func (c *healthCommand) healthClient(ctx context.Context, std *IO) (*admin.Client, error) {
	cfg, err := c.loadClient(ctx, std)
	if err != nil {
		return nil, err
	}
	if cfg.Admin.Listen == "off" && cfg.Probes.Listen != "" {
		return admin.NewProbesClient(cfg.Probes.Listen)
	}
	return admin.NewClient(cfg)
}
