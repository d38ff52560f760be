// Package simulate implements `drover scale simulate`: it runs traces of arrivals through the
// scaling policy and through models of other systems, and reports how each would have scaled. The
// command calls Options.Run once, from one goroutine. It starts nothing, and reads no source.
package simulate

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

// Options are the flags of the command.
type Options struct {
	Trace  string `help:"Simulate this trace: a CSV file (time,arrivals), or a generated one: steady, step, ramp, 'daily season', bursts, spike, bottleneck, 'slow starters', or all." default:"all"`
	Policy string `help:"Read the policy from a YAML file: scale, as in a configuration, and model, the system that is scaled (default: the defaults, with up to 10,000 instances)."`
	Plot   string `help:"Write an SVG of each trace into this directory."`
	Write  string `help:"Write a CSV of each trace into this directory, for editing and use with --trace."`
	Seed   uint64 `default:"1" help:"Set the seed of the random numbers; the same seed gives the same result."`
}

// Run writes the table of the simulations to out. It reads the environment only for values of
// the policy file.
func (o *Options) Run(out io.Writer, env configs.Env) error {
	traces, err := o.selectTraces()
	if err != nil {
		return err
	}
	settings := defaultPolicy()
	if o.Policy != "" {
		if settings, err = loadPolicy(o.Policy, env); err != nil {
			return err
		}
		simulated, err := settings.simModel()
		if err != nil {
			return fmt.Errorf("%s: %w", o.Policy, err)
		}
		for i := range traces {
			traces[i].Model = simulated
		}
	}
	var comparisons []sim.Comparison
	began := time.Now()
	for _, trace := range traces {
		policy := settings.Scale.InstancePolicy()
		if o.Policy == "" { // each trace has its own age target
			policy.ClearWithin, policy.MaxAge = 0, trace.Model.MaxAge
		}
		comparison := sim.Compare(trace, append([]sim.Policy{sim.Drover(policy)}, sim.Peers()...), o.Seed)
		comparisons = append(comparisons, comparison)
		if err := o.writeFiles(comparison); err != nil {
			return err
		}
	}
	if err := sim.WriteReport(out, comparisons); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nlate: waited for longer than the age target; avoidably: what the clairvoyant had in time. Simulated in %v.\n", time.Since(began).Round(time.Millisecond))
	return err
}

// selectTraces returns the traces that the flags select.
func (o *Options) selectTraces() ([]sim.Trace, error) {
	made := sim.Traces(o.Seed)
	if o.Trace == "all" {
		return made, nil
	}
	names := make([]string, len(made))
	for i, trace := range made {
		if names[i] = trace.Name; trace.Name == o.Trace {
			return made[i : i+1], nil
		}
	}
	file, err := os.Open(o.Trace)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no trace %s: it is not a file, all, or one of %s", o.Trace, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("reading a trace: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	trace, err := sim.ReadCSV(strings.TrimSuffix(filepath.Base(o.Trace), ".csv"), file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Trace, err)
	}
	if trace.Model, err = defaultPolicy().simModel(); err != nil {
		return nil, err
	}
	return []sim.Trace{trace}, nil
}

// writeFiles writes the files that the flags request, besides the table.
func (o *Options) writeFiles(comparison sim.Comparison) error {
	name := strings.ReplaceAll(comparison.Trace.Name, " ", "-")
	return errors.Join(
		writeInto(o.Plot, name+".svg", comparison.Plot),
		writeInto(o.Write, name+".csv", comparison.Trace.WriteCSV),
	)
}

// writeInto writes a file into a directory, which it creates if it is missing. It does nothing if
// dir is empty.
func writeInto(dir, name string, write func(io.Writer) error) (err error) {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // others may read it
		return fmt.Errorf("making %s: %w", dir, err)
	}
	file, err := os.Create(filepath.Join(dir, filepath.Base(name)))
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}
