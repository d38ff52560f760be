package workloads

import (
	"context"
	"fmt"
	"os"
	"time"
)

// coroutines10k has one worker with 10,000 calls in flight that each await a second: at
// best 10,000 a second.
func (b *bed) coroutines10k(ctx context.Context, length time.Duration) error {
	const inFlight = 10_000
	w := workload{Name: "coroutines10k", Functions: []string{"second"}}
	t, err := b.run(ctx, w, &settings{Processes: 1, Threads: 1, Coroutines: inFlight}, "-", length, 1.1*inFlight)
	if err != nil {
		return err
	}
	// All that began together ends together, so that less than some seconds say nothing.
	rate := t.rate(0, t.end())
	_, err = fmt.Fprintf(os.Stdout, "one worker, %d in flight on an await of a second, for %v: %.0f/s, %.2f of the most that is possible\n",
		inFlight, length, rate, rate/inFlight)
	return err
}
