package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"text/tabwriter"
)

type throughputCommand struct {
	Rounds   int  `default:"5" help:"Rounds; each runs every setup once, in an order that turns."`
	Messages int  `default:"300000" help:"Messages for each setup and round."`
	Size     int  `default:"128" help:"Bytes of a message."`
	JSON     bool `help:"Print one JSON object in place of the table."`

	Only    string `help:"Run only this setup, beside the ceiling."`
	Profile string `help:"Write a CPU profile to this file, and leave the ceiling out."`
}

// setups are drover's; the ceiling comes first in the report.
var setups = []setup{
	{name: "go"},
	{name: "python-inline-1", function: "noop", processes: 1, threads: 1},
	{name: "python-inline-2", function: "noop", processes: 2, threads: 1},
	{name: "python-threads-1", function: "noop", processes: 1, threads: 4},
	{name: "python-threads-2", function: "noop", processes: 2, threads: 4},
	{name: "python-async-1", function: "async_noop", processes: 1, threads: 1},
	{name: "python-async-2", function: "async_noop", processes: 2, threads: 1},
	{name: "node-1", function: "noop", node: true, processes: 1},
	{name: "node-2", function: "noop", node: true, processes: 2},
	{name: "node-async-1", function: "async_noop", node: true, processes: 1},
	{name: "node-async-2", function: "async_noop", node: true, processes: 2},
}

const ceilingName = "ceiling"

// figure is a median over the rounds.
type figure struct {
	PerSecond float64 `json:"per_second"`
	Ratio     float64 `json:"ratio"` // to the ceiling's median
}

func (c *throughputCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.Messages < 1 || c.Size < 0 {
		return errors.New("--rounds and --messages must be at least 1, --size at least 0")
	}
	r, err := newRig(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.fill(ctx, c.Messages, c.Size, nil); err != nil {
		return fmt.Errorf("filling the stream: %w", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		fmt.Fprintln(os.Stderr, "there is no node on the path: Node.js is left out")
		setups = slices.DeleteFunc(setups, func(s setup) bool { return s.node })
	}
	if c.Only != "" {
		setups = slices.DeleteFunc(setups, func(s setup) bool { return s.name != c.Only })
	}
	rates := make(map[string][]float64)
	if err := profiled(c.Profile, func() error {
		for round := range c.Rounds {
			if err := c.round(ctx, r, round, rates); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	figures := make(map[string]figure)
	top := median(rates[ceilingName])
	for name, all := range rates {
		m := median(all)
		figures[name] = figure{PerSecond: m, Ratio: m / top}
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(figures)
	}
	fmt.Printf("%d messages of %d bytes, medians of %d rounds, %d cores, %s\n",
		c.Messages, c.Size, c.Rounds, runtime.NumCPU(), runtime.Version())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmessages/s\t÷ ceiling\t")
	for _, name := range append([]string{ceilingName}, names(setups)...) {
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t\n", name, figures[name].PerSecond, figures[name].Ratio)
	}
	return w.Flush()
}

func names(setups []setup) (out []string) {
	for _, s := range setups {
		out = append(out, s.name)
	}
	return out
}

// round runs everything once. The order turns with each round, so that none
// always follows the same one.
func (c *throughputCommand) round(ctx context.Context, r *rig, round int, rates map[string][]float64) error {
	for i := range len(setups) + 1 {
		i = (i + round) % (len(setups) + 1)
		name, rate := ceilingName, 0.0
		if i == len(setups) {
			if c.Profile != "" {
				rates[name] = []float64{1} // it would blur the profile
				continue
			}
			// The better of two ways, so that it is a ceiling.
			for _, goroutines := range []int{0, 2 * runtime.NumCPU()} {
				took, err := r.ceiling(ctx, c.Messages, goroutines)
				if errors.Is(err, errStalled) {
					fmt.Fprintln(os.Stderr, "the ceiling, once more:", err)
					took, err = r.ceiling(ctx, c.Messages, goroutines)
				}
				if err != nil {
					return fmt.Errorf("the ceiling: %w", err)
				}
				rate = max(rate, float64(c.Messages)/took.Seconds())
			}
		} else {
			name = setups[i].name
			took, err := r.drover(ctx, c.Messages, setups[i])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rate = float64(c.Messages) / took.Seconds()
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: %s %.0f/s\n", round+1, c.Rounds, name, rate)
		rates[name] = append(rates[name], rate)
	}
	return nil
}

// profiled writes a CPU profile of what it runs, where a file is named.
func profiled(path string, run func() error) (err error) {
	if path == "" {
		return run()
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return run()
}
