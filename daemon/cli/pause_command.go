package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

// pauseCommand is `drover pause`.
type pauseCommand struct {
	Function string `arg:"" help:"Pause this function."`
	clientFlags
	Until string `help:"Resume after a duration, such as 2h, or at a time, such as 2026-01-31T08:00:00Z (default: until drover resume or the daemon stops)."`
}

func (*pauseCommand) Help() string {
	return `Pauses the function in all instances. Its messages wait at the source.

Examples:

    drover pause thumbnails --until 2h
    drover pause thumbnails --until "$(date -d 'tomorrow 08:00' -Iseconds)"
    drover pause thumbnails          # until drover resume or the daemon stops
`
}

func (c *pauseCommand) Run(ctx context.Context, std *IO) error {
	var until time.Time
	if c.Until != "" {
		if length, err := time.ParseDuration(c.Until); err == nil {
			until = time.Now().Add(length)
		} else if until, err = time.Parse(time.RFC3339, c.Until); err != nil {
			return exit.UsageError(fmt.Sprintf("--until is %q; write it as 2h, or as 2026-01-31T08:00:00Z", c.Until))
		}
		if !until.After(time.Now()) {
			return exit.UsageError("--until is over already")
		}
	}
	return c.postEmpty(ctx, std, api.PausePath(c.Function, true, until))
}

// resumeCommand is `drover resume`.
type resumeCommand struct {
	Function string `arg:"" help:"Resume this function."`
	clientFlags
}

func (*resumeCommand) Help() string {
	return `Example:

    drover resume thumbnails
`
}

func (c *resumeCommand) Run(ctx context.Context, std *IO) error {
	return c.postEmpty(ctx, std, api.PausePath(c.Function, false, time.Time{}))
}

// reloadCommand is `drover reload`.
type reloadCommand struct {
	clientFlags
}

// Help implements kong.HelpProvider.
func (*reloadCommand) Help() string {
	return `The daemon reads and checks the file again, and opens and loads everything new
while the old functions still run. If anything is wrong, nothing changes. Then each
function whose settings or code changed finishes its messages in flight and is
replaced. All other functions keep running. SIGHUP does the same.

Examples:

    drover reload
    drover reload -c /etc/drover/drover.yaml
`
}

// Run makes the daemon of a configuration read it again.
func (c *reloadCommand) Run(ctx context.Context, std *IO) error {
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	var changes api.Changes
	if err := client.WithoutTimeout().PostJSON(ctx, api.ReloadPath, nil, &changes); err != nil {
		var refused *admin.LoadRefusedError
		if errors.As(err, &refused) {
			return &exit.CodeError{Err: err}
		}
		return err
	}
	_, err = fmt.Fprintln(std.Out, "reloaded:", changes)
	return err
}
