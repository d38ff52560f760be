package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/dashboard"
	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
)

// statusCommand is `drover status`.
type statusCommand struct {
	clientFlags
	JSON  bool          `name:"json" help:"Print JSON once."`
	Once  bool          `help:"Print once, even on a terminal."`
	Watch bool          `help:"Print again at each interval, even if the output is not a terminal."`
	Every time.Duration `default:"1s" help:"Refresh at this interval, on a terminal or with --watch."`
}

func (*statusCommand) Help() string {
	return `On a terminal the table is live. The arrow keys select a function, p pauses it, r resumes it, d opens its dead letters, enter explains what it waits for, / filters by name, and q quits. Elsewhere the table is printed once.

The first table shows rates since the daemon started; later ones show rates since the last refresh. A terminal that is too narrow for all columns shows the most important ones.

Examples:

    drover status
    drover status --json | jq '.functions[].backlog'
    drover status --once -c /etc/drover/orders.yaml
`
}

func (c *statusCommand) Run(ctx context.Context, std *IO) error {
	switch {
	case c.Every <= 0:
		return exit.UsageError("--every must be more than 0s")
	case c.Watch && (c.Once || c.JSON):
		return exit.UsageError("--watch cannot be combined with --once or --json")
	}
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	show := &dashboard.Output{
		In: std.In, Out: std.Out, IsTerminal: std.OutIsTerminal, Palette: term.NewPalette(std.OutIsTerminal, std.Env), Resizes: std.Resizes,
		Client: client, Every: c.Every, JSON: c.JSON, Once: c.Once || !std.OutIsTerminal && !c.Watch,
	}
	return show.ShowStatus(ctx, func(ctx context.Context, frame *live.Frame, function string) ([]triggers.DeadLetter, error) {
		return c.readDeadLetters(ctx, std.inFrame(frame), function)
	})
}

// readDeadLetters returns the oldest dead letters of a function. Unlike the rest of the command, it
// needs the configuration with its secrets.
func (c *statusCommand) readDeadLetters(ctx context.Context, std *IO, function string) (out []triggers.DeadLetter, err error) {
	target := deadTarget{Function: function, configFlag: c.configFlag}
	var filter deadletter.Filter
	match, err := filter.NewMatch(function, time.Now())
	if err != nil {
		return nil, err
	}
	d, _, done, err := target.openLetters(ctx, std, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return deadletter.ReadOldest(ctx, d, match)
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
	return term.Print(std.Out, term.Printable(strings.Join(append([]string{"ok"}, health.Notes...), "\n  - "))+"\n")
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
