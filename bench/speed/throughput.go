// Package speed has the commands that measure rates, latency and costs on one machine, beside upper bounds.
package speed

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
	"strings"
	"text/tabwriter"

	"github.com/drover-run/drover/bench/rig"
)

type ThroughputCommand struct {
	Rounds   int  `default:"5" help:"Rounds; each runs every setup once, in an order that turns."`
	Messages int  `default:"300000" help:"Messages for each setup and round."`
	Size     int  `default:"128" help:"Bytes of a message."`
	JSON     bool `help:"Print one JSON object instead of the table."`

	Limits  bool   `help:"Measure streams of retention limits, too, whose messages stay. By default only work queues, as drover creates them."`
	Only    string `help:"Run only this setup, beside the ceiling."`
	Profile string `help:"Write a CPU profile to this file, and leave the ceiling out."`
}

// setups are drover's; the ceiling comes first in the report.
var setups = []rig.Setup{
	{Name: "go"},
	{Name: "python-inline-1", Function: "noop", Processes: 1, Threads: 1},
	{Name: "python-inline-2", Function: "noop", Processes: 2, Threads: 1},
	{Name: "python-threads-1", Function: "noop", Processes: 1, Threads: 4},
	{Name: "python-threads-2", Function: "noop", Processes: 2, Threads: 4},
	{Name: "python-async-1", Function: "async_noop", Processes: 1, Threads: 1},
	{Name: "python-async-2", Function: "async_noop", Processes: 2, Threads: 1},
	{Name: "node-1", Function: "noop", Node: true, Processes: 1},
	{Name: "node-2", Function: "noop", Node: true, Processes: 2},
	{Name: "node-async-1", Function: "async_noop", Node: true, Processes: 1},
	{Name: "node-async-2", Function: "async_noop", Node: true, Processes: 2},
}

const ceilingName = "ceiling"

// figure is a median over the rounds.
type figure struct {
	PerSecond float64 `json:"per_second"`
	Ratio     float64 `json:"ratio"` // to the ceiling's median
}

func (c *ThroughputCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.Messages < 1 || c.Size < 0 {
		return errors.New("--rounds and --messages must be at least 1, --size at least 0")
	}
	var rigs []*rig.Rig
	defer func() {
		for _, r := range rigs {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, limits := range []bool{false, true}[:rig.Pick(c.Limits, 2, 1)] {
		r, err := rig.NewOf(ctx, limits)
		if err != nil {
			return err
		}
		rigs = append(rigs, r)
		if err := r.Fill(ctx, c.Messages, c.Size, nil); err != nil {
			return fmt.Errorf("filling the stream: %w", err)
		}
	}
	if _, err := exec.LookPath("node"); err != nil {
		fmt.Fprintln(os.Stderr, "there is no node on the path: Node.js is left out")
		setups = slices.DeleteFunc(setups, func(s rig.Setup) bool { return s.Node })
	}
	if c.Only != "" {
		setups = slices.DeleteFunc(setups, func(s rig.Setup) bool { return s.Name != c.Only })
	}
	rates := make(map[string][]float64)
	if err := profiled(c.Profile, func() error {
		for round := range c.Rounds {
			for _, r := range rigs {
				if err := c.round(ctx, r, round, rates); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	figures := make(map[string]figure)
	for name, all := range rates {
		m := rig.Median(all)
		figures[name] = figure{PerSecond: m, Ratio: m / rig.Median(rates[ceilingName+suffixOf(name)])}
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(figures)
	}
	fmt.Printf("%d messages of %d bytes, medians of %d rounds, %d cores, %s\n",
		c.Messages, c.Size, c.Rounds, runtime.NumCPU(), runtime.Version())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmessages/s\t÷ ceiling\t")
	for _, r := range rigs {
		for _, name := range append([]string{ceilingName}, names(setups)...) {
			name += suffix(r)
			fmt.Fprintf(w, "%s\t%.0f\t%.2f\t\n", name, figures[name].PerSecond, figures[name].Ratio)
		}
	}
	return w.Flush()
}

// limitsSuffix ends the names of setups on a stream of retention limits.
const limitsSuffix = " limits"

func suffix(r *rig.Rig) string { return rig.Pick(r.Limits, limitsSuffix, "") }

func suffixOf(name string) string {
	return rig.Pick(strings.HasSuffix(name, limitsSuffix), limitsSuffix, "")
}

func names(setups []rig.Setup) (out []string) {
	for _, s := range setups {
		out = append(out, s.Name)
	}
	return out
}

// round runs everything once. The order turns with each round, so that none
// always follows the same one.
func (c *ThroughputCommand) round(ctx context.Context, r *rig.Rig, round int, rates map[string][]float64) error {
	for i := range len(setups) + 1 {
		i = (i + round) % (len(setups) + 1)
		name, rate := ceilingName, 0.0
		if i == len(setups) {
			if c.Profile != "" {
				rates[name+suffix(r)] = []float64{1} // it would blur the profile
				continue
			}
			// The better of two ways, so that it is a ceiling.
			for _, goroutines := range []int{0, 2 * runtime.NumCPU()} {
				took, err := r.Ceiling(ctx, c.Messages, goroutines)
				if errors.Is(err, rig.ErrStalled) {
					fmt.Fprintln(os.Stderr, "the ceiling, once more:", err)
					took, err = r.Ceiling(ctx, c.Messages, goroutines)
				}
				if err != nil {
					return fmt.Errorf("the ceiling: %w", err)
				}
				rate = max(rate, float64(c.Messages)/took.Seconds())
			}
		} else {
			name = setups[i].Name
			took, err := r.Drover(ctx, c.Messages, setups[i])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rate = float64(c.Messages) / took.Seconds()
		}
		name += suffix(r)
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
