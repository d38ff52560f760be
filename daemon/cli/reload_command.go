package cli

import (
	"context"
	"fmt"

	"github.com/drover-run/drover/daemon/internal/api"
)

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

// Run has the daemon of a configuration read it again.
func (c *reloadCommand) Run(ctx context.Context, std *IO) error {
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	var changes api.Changes
	if err := client.WithoutTimeout().PostJSON(ctx, api.ReloadPath, nil, &changes); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, "reloaded:", changes)
	return err
}
