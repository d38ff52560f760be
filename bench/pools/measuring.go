package pools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/handlers/workers"

	"github.com/drover-run/drover/bench/rig"
)

type MeasuringCommand struct {
	Rounds   int           `default:"5" help:"Rounds; the medians are reported."`
	Messages int           `default:"300000" help:"Calls for each setup, with measuring and without, in each round."`
	Warm     int           `default:"20000" help:"Calls before the clock starts."`
	Only     string        `default:"" enum:",inline,threads,async" help:"Only one setup: inline, threads or async."`
	Pause    time.Duration `default:"0s" help:"Before each run: some machines are slowed down after seconds of work."`
}

// noops do nothing, so that only drover's own part is measured.
const noops = "def noop(body): pass\nasync def async_noop(body): pass\n"

// Run measures what measuring calls costs: the rate of a pool of one worker that does
// nothing, with measuring and without, in turns. There is no source, so that it shows more
// than it would in a daemon.
func (c *MeasuringCommand) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.Messages < 1 || c.Warm < 1 {
		return errors.New("all numbers must be at least 1")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmeasured/s\tunmeasured/s\tmeasured ÷ unmeasured\teach round\tworker's CPU a call, measured\tunmeasured\t")
	for _, s := range []struct {
		name, function string
		threads        int
	}{{"inline", "noop", 1}, {"threads", "noop", 4}, {"async", "async_noop", 1}} {
		if c.Only != "" && c.Only != s.name {
			continue
		}
		var rates, costs [2][]float64 // measured, unmeasured
		var ratios []float64
		for round := range c.Rounds {
			for i := range rates {
				i = (i + round) % 2
				select {
				case <-time.After(c.Pause):
				case <-ctx.Done():
					return ctx.Err()
				}
				rate, cost, err := c.rate(ctx, s.function, s.threads, i == 1)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				rates[i], costs[i] = append(rates[i], rate), append(costs[i], cost)
			}
			ratios = append(ratios, rates[0][round]/rates[1][round])
		}
		each := ""
		for _, r := range ratios {
			each += fmt.Sprintf(" %.3f", r)
		}
		with, without := rig.Median(rates[0]), rig.Median(rates[1])
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.3f\t%s\t%.2f µs\t%.2f µs\t\n", s.name, with, without, with/without, each, rig.Median(costs[0]), rig.Median(costs[1]))
	}
	return w.Flush()
}

// rate returns calls a second, and what one costs its worker in µs of processor time,
// which depends less on what else the machine does.
func (c *MeasuringCommand) rate(ctx context.Context, function string, threads int, unmeasured bool) (rate, cost float64, err error) {
	p, end, err := pythonPool(ctx, noops, []string{"noop", "async_noop"}, func(cfg *workers.Config) {
		cfg.Settings.Threads, cfg.Unmeasured = threads, unmeasured
	})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := ready(ctx, p, 1); err != nil {
		return 0, 0, err
	}
	if err := new(Calls).Run(ctx, p, function, c.Warm); err != nil {
		return 0, 0, err
	}
	l := new(Calls)
	used, began := p.Usage().CPU, time.Now()
	if err := l.Run(ctx, p, function, c.Messages); err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	if n := l.Failed.Load(); n > 0 {
		return 0, 0, fmt.Errorf("%d calls failed", n)
	}
	used = p.Usage().CPU - used
	return float64(c.Messages) / took.Seconds(), float64(used.Microseconds()) / float64(c.Messages), nil
}
