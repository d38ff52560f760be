package speed

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/drover-run/drover/bench/rig"
)

type AllocsCommand struct {
	Messages int `default:"100000" help:"Messages for each run."`
	Rounds   int `default:"5" help:"Runs of each."`
}

// Run counts the heap allocations of the whole process, server included, with
// and without drover between nats.go and a no-op: the difference is drover's.
func (c *AllocsCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.Messages < 1 {
		return errors.New("--rounds and --messages must be at least 1")
	}
	r, err := rig.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Fill(ctx, c.Messages, 128, nil); err != nil {
		return err
	}
	var bare, ours []float64
	for range c.Rounds {
		for _, run := range []struct {
			into *[]float64
			do   func() error
		}{
			{&bare, func() error { _, err := r.Ceiling(ctx, c.Messages, 0); return err }},
			{&ours, func() error { _, err := r.Drover(ctx, c.Messages, setups[0]); return err }},
		} {
			if err := r.Refill(ctx); err != nil { // sending allocates, too
				return err
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := run.do(); err != nil {
				return err
			}
			runtime.ReadMemStats(&after)
			*run.into = append(*run.into, float64(after.Mallocs-before.Mallocs)/float64(c.Messages))
		}
	}
	fmt.Printf("allocations a message, medians of %d: nats.go alone %.2f, with drover and a Go no-op %.2f, drover's own %.2f\n",
		c.Rounds, rig.Median(bare), rig.Median(ours), rig.Median(ours)-rig.Median(bare))
	return nil
}
