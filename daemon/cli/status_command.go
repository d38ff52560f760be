package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/statustext"
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
    drover status --json | jq '.functions[].Backlog'
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
				return nil // told to stop while it asked
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
		text := statustext.Table(now, last, c.Every)
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
