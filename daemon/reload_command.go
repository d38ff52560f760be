package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/drover-run/drover/daemon/internal/api"
)

// maxReload bounds the body, in bytes. Only an instance gets one: its configuration, in JSON.
const maxReload = 4 << 20

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
	client, err := c.adminClient(ctx, std)
	if err != nil {
		return err
	}
	client.http.Timeout = 0 // the daemon bounds a reload
	var changes api.Changes
	if err := client.do(ctx, http.MethodPost, api.ReloadPath, nil, &changes); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, "reloaded:", changes)
	return err
}

func (d *Daemon) answerReload(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReload))
	if err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	changes, err := d.reloadInstead(r.Context(), body)
	if err != nil {
		text := "reload refused; nothing has changed: " + err.Error()
		if detail := detailOf(err); detail != "" {
			text += "\n" + strings.TrimSpace(detail)
		}
		refuse(w, http.StatusUnprocessableEntity, "%s", text)
		return
	}
	answer(w, http.StatusOK, changes)
}
