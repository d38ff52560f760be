package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

// statusCommand is `drover status`.
type statusCommand struct {
	clientFlags
	JSON  bool          `name:"json" help:"Print JSON once."`
	Once  bool          `help:"Print once, even on a terminal."`
	Every time.Duration `default:"1s" help:"Refresh the table at this interval, on a terminal."`
}

func (*statusCommand) Help() string {
	return `The first table shows rates since the daemon started; later ones show rates since the last refresh.

Examples:

    drover status
    drover status --json | jq '.functions[].backlog'
    drover status --once -c /etc/drover/orders.yaml
`
}

func (c *statusCommand) Run(ctx context.Context, std *IO) error {
	if c.Every <= 0 {
		return exit.UsageError("--every must be more than 0s")
	}
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	var last api.StatusReport
	drawn := 0
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		var now api.StatusReport
		if err := client.GetJSON(ctx, api.StatusPath, &now); err != nil {
			if drawn > 0 && ctx.Err() != nil {
				return nil // the context ended during the request
			}
			return err
		}
		if c.JSON {
			text, err := json.MarshalIndent(now, "", "  ")
			if err != nil {
				return fmt.Errorf("writing the status: %w", err)
			}
			_, err = std.Out.Write(append(text, '\n'))
			return err
		}
		if drawn > 0 {
			_, _ = fmt.Fprintf(std.Out, "\x1b[%dA\x1b[J", drawn)
		}
		text := statustext.StatusTable(now, last, c.Every)
		drawn, last = strings.Count(text, "\n"), now
		_, _ = fmt.Fprint(std.Out, text)
		if c.Once || !std.OutIsTerminal {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// healthCommand is `drover health`, for health checks that run a program and cannot send a request
// to a port, as in a container without a shell and curl.
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
	client, err := c.newHealthClient(ctx, std)
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

// newHealthClient returns the client of the admin server or, if that is off, of the probes.
func (c *healthCommand) newHealthClient(ctx context.Context, std *IO) (*admin.Client, error) {
	cfg, err := c.loadClient(ctx, std)
	if err != nil {
		return nil, err
	}
	if cfg.Admin.Listen == "off" && cfg.Probes.Listen != "" {
		return admin.NewProbesClient(cfg.Probes.Listen)
	}
	return admin.NewClient(cfg)
}
