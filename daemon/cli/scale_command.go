package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler/sim"
)

type scaleCommand struct {
	Explain  explainCommand  `cmd:"" help:"Explain the latest scaling decisions of a running daemon: inputs, formula, and the limits that applied."`
	Simulate simulateCommand `cmd:"" help:"Simulate the scaling policy, and those of other systems, on a trace of arrivals."`
}

// simulateCommand is `drover scale simulate`.
type simulateCommand struct {
	Trace  string `help:"Simulate this trace: a CSV file (time,arrivals), or a generated one: steady, step, ramp, 'daily season', bursts, spike, bottleneck, 'slow starters', or all." default:"all"`
	Policy string `help:"Read the policy from a YAML file: scale, as in a configuration, and model, the system that is scaled (default: the defaults, with up to 10,000 instances)."`
	Plot   string `help:"Write an SVG of each trace into this directory."`
	Write  string `help:"Write a CSV of each trace into this directory, for editing and use with --trace."`
	Seed   uint64 `default:"1" help:"Set the seed of the random numbers; the same seed gives the same result."`
}

func (*simulateCommand) Help() string {
	return `Examples:

    drover scale simulate
    drover scale simulate --trace bursts --plot plots
    drover scale simulate --trace monday.csv --policy policy.yaml
`
}

func (c *simulateCommand) Run(std *IO) error {
	traces, err := c.traces()
	if err != nil {
		return err
	}
	settings := configs.NewSimulation()
	if c.Policy != "" {
		if settings, err = configs.LoadSimulation(c.Policy, std.Env); err != nil {
			return err
		}
		model, err := settings.SimModel()
		if err != nil {
			return fmt.Errorf("%s: %w", c.Policy, err)
		}
		for i := range traces {
			traces[i].Model = model
		}
	}
	var comparisons []sim.Comparison
	began := time.Now()
	for _, trace := range traces {
		policy := settings.Scale.InstancePolicy()
		if c.Policy == "" { // the age target is the trace's
			policy.ClearWithin, policy.MaxAge = 0, trace.Model.MaxAge
		}
		comparison := sim.Compare(trace, append([]sim.Policy{sim.Drover(policy)}, sim.Peers()...), c.Seed)
		comparisons = append(comparisons, comparison)
		if err := c.files(comparison); err != nil {
			return err
		}
	}
	if err := sim.Report(std.Out, comparisons); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Out, "\nlate: waited for longer than the age target; avoidably: what the clairvoyant had in time. Simulated in %v.\n", time.Since(began).Round(time.Millisecond))
	return err
}

// traces are those that were asked for.
func (c *simulateCommand) traces() ([]sim.Trace, error) {
	made := sim.Traces(c.Seed)
	if c.Trace == "all" {
		return made, nil
	}
	names := make([]string, len(made))
	for i, trace := range made {
		if names[i] = trace.Name; trace.Name == c.Trace {
			return made[i : i+1], nil
		}
	}
	file, err := os.Open(c.Trace)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no trace %s: it is not a file, all, or one of %s", c.Trace, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("reading a trace: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	trace, err := sim.ReadCSV(strings.TrimSuffix(filepath.Base(c.Trace), ".csv"), file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Trace, err)
	}
	if trace.Model, err = configs.NewSimulation().SimModel(); err != nil {
		return nil, err
	}
	return []sim.Trace{trace}, nil
}

// files writes what was asked for beside the table.
func (c *simulateCommand) files(comparison sim.Comparison) error {
	name := strings.ReplaceAll(comparison.Trace.Name, " ", "-")
	return errors.Join(
		writeInto(c.Plot, name+".svg", comparison.Plot),
		writeInto(c.Write, name+".csv", comparison.Trace.WriteCSV),
	)
}

// writeInto writes a file into a directory, which is made where it is missing; not
// at all where none is given.
func writeInto(dir, name string, write func(io.Writer) error) (err error) {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // it holds what others may read
		return fmt.Errorf("making %s: %w", dir, err)
	}
	file, err := os.Create(filepath.Join(dir, filepath.Base(name)))
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}
