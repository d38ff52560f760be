package pools

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"

	"github.com/drover-run/drover/bench/rig"
)

type TimeoutsCommand struct {
	Calls int           `default:"1000" help:"Calls that overrun, of each kind."`
	Grace time.Duration `default:"500ms" help:"The kill_grace of those that do not obey."`
	Only  string        `enum:"all,inline,threads,async,killed" default:"all" help:"all, or one part: inline, threads, async, killed."`
}

// overrun is an app whose functions never end by themselves. The last one ignores cancellation,
// too.
const overrun = `
import asyncio, time
def waits(body): time.sleep(600)
def works(body):
    while True: time.sleep(0.001)
async def awaits(body): await asyncio.sleep(600)
def stays(body):
    while True:
        try: time.sleep(600)
        except BaseException: pass
`

// Run measures the delay of the verdict on a call that overruns: after its deadline if its function
// obeys, after its deadline and kill_grace if its worker is killed.
func (c *TimeoutsCommand) Run(ctx context.Context) error {
	if c.Calls < 1 || c.Grace < 100*time.Millisecond {
		return errors.New("--calls must be at least 1, --grace 100ms")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "calls that overrun\tcalls\tlate, p50\tp99\tmax\tworkers killed\t")
	measure := func(name, function string, lanes int, grace time.Duration, change func(*workers.Config)) rig.Part {
		return rig.Part{Name: name, Run: func(ctx context.Context) error {
			late, killed, err := c.measure(ctx, function, lanes, grace, change)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			slices.Sort(late)
			at := func(q float64) float64 { return late[int(q*float64(len(late)-1))].Seconds() * 1e3 }
			fmt.Fprintf(table, "%s\t%d\t%.1f ms\t%.1f ms\t%.1f ms\t%d\t\n", name, len(late), at(0.5), at(0.99), at(1), killed)
			return nil
		}}
	}
	err := rig.RunParts(ctx, c.Only,
		measure("inline", "waits", 4, 0, func(cfg *workers.Config) { cfg.Settings.Processes = 4 }),
		measure("threads", "works", 4, 0, func(cfg *workers.Config) { cfg.Settings.Threads = 4 }),
		measure("async", "awaits", 64, 0, func(cfg *workers.Config) {}),
		measure("killed", "stays", 4, c.Grace, func(cfg *workers.Config) { cfg.Settings.Processes, cfg.KillGrace, cfg.Template = 4, c.Grace, true }),
	)
	return errors.Join(err, table.Flush())
}

// verdict takes when a call was judged.
type verdict struct {
	err error
	at  time.Time
}

type verdicts chan verdict

func (v verdicts) SetResult(_ []byte, err error) { v <- verdict{err, time.Now()} }

// measure runs the calls in so many lanes, one after the other in each, with timeouts
// from 50 to 150 ms.
func (c *TimeoutsCommand) measure(ctx context.Context, function string, lanes int, grace time.Duration, change func(*workers.Config)) (late []time.Duration, killed int, err error) {
	p, end, err := pythonPool(ctx, overrun, []string{function}, change)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	h, err := p.HandlerOf(function)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range lanes {
		all.Go(func() {
			for ctx.Err() == nil {
				deadline := time.Now().Add(50*time.Millisecond + rand.N(100*time.Millisecond))
				limited, done := context.WithDeadline(ctx, deadline)
				to := make(verdicts, 1)
				h.Start(limited, &triggers.Message{ID: "x", Attempt: 1}, to)
				v := <-to
				done()
				switch {
				case errors.Is(v.err, handlers.ErrNotTried): // it waited for a worker
				case !errors.Is(v.err, context.DeadlineExceeded):
					cancel(fmt.Errorf("a call that overran ended with %w", v.err))
				default:
					mu.Lock()
					if late = append(late, v.at.Sub(deadline.Add(grace))); len(late) == c.Calls {
						cancel(nil)
					}
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return nil, 0, cause
	}
	return late[:c.Calls], p.Stats().Restarts[process.CauseTimeout], nil
}
