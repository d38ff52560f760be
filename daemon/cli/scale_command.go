package cli

import "github.com/drover-run/drover/daemon/cli/simulate"

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
