package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/simulate"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

type scaleCommand struct {
	Explain  explainCommand  `cmd:"" help:"Explain the latest scaling decisions of a running daemon: inputs, formula, and the limits that applied."`
	Simulate simulateCommand `cmd:"" help:"Simulate the scaling policy, and those of other systems, on a trace of arrivals."`
}

// simulateCommand is `drover scale simulate`.
type simulateCommand struct{ simulate.Options }

func (*simulateCommand) Help() string {
	return `Examples:

    drover scale simulate
    drover scale simulate --trace bursts --plot plots
    drover scale simulate --trace monday.csv --policy policy.yaml
`
}

func (c *simulateCommand) Run(std *IO) error { return c.Options.Run(std.Out, std.Env) }

// explainCommand is `drover scale explain`.
type explainCommand struct {
	clientFlags
}

func (*explainCommand) Help() string {
	return `Example:

    drover scale explain
`
}

func (c *explainCommand) Run(ctx context.Context, std *IO) error {
	cfg, err := c.loadClient(ctx, std)
	if err != nil {
		return err
	}
	client, err := admin.NewClient(cfg)
	if err != nil {
		return err
	}
	found, err := explain(ctx, std, client, "")
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(cfg.DataDir, "instances", "*"))
	if err != nil {
		return fmt.Errorf("looking for instances: %w", err)
	}
	for _, dir := range dirs {
		more, err := explain(ctx, std, admin.NewSocketClient(dir), " in instance "+filepath.Base(dir))
		if err != nil && !errors.Is(err, admin.ErrNoDaemon) { // one that has gone has nothing to say
			return err
		}
		found = found || more
	}
	if !found {
		return errors.New("no decisions: the daemon scales nothing (see scale.instances, and apps without processes)")
	}
	return nil
}

// explain prints one daemon's latest decisions, and reports whether there are any.
func explain(ctx context.Context, std *IO, client *admin.Client, where string) (found bool, err error) {
	var latest map[string]api.Decided
	if err := client.GetJSON(ctx, api.ScalePath, &latest); err != nil {
		return false, err
	}
	for _, about := range slices.Sorted(maps.Keys(latest)) {
		d := latest[about]
		_, _ = fmt.Fprintf(std.Out, "%s%s, decided at %s, %v ago\n", about, where, d.At.Format(time.TimeOnly), time.Since(d.At).Round(time.Second))
		for line := range strings.Lines(d.Text) {
			_, _ = fmt.Fprint(std.Out, "  ", line)
		}
	}
	return len(latest) > 0, nil
}
