package pools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"

	"github.com/drover-run/drover/bench/rig"
)

type BlockedCommand struct {
	Blocks int           `default:"1000" help:"Blocks that are made, of five causes."`
	For    time.Duration `default:"10s" help:"How long the neighbours are measured, before the blocker comes and after."`
	Only   string        `enum:"all,reported,isolated" default:"all" help:"Run all, or one part: reported, isolated."`
}

// blockers is an app of functions that each block their loop for 0.15 s, each in a different way,
// and return when the block began; and of two that do not block.
const blockers = `
import asyncio, ctypes, os, random, re, socket, threading, time, zlib
TIME = 0.15
async def sleeps(body):
    begin = time.time()
    time.sleep(TIME)  # here
    return str(begin)
def count(until):
    n = 0
    while time.time() < until: n += 1  # here
async def counts(body):
    begin = time.time()
    count(begin + TIME)
    return str(begin)
subject, pattern = "a" * 16 + "b", re.compile("(a+)+$")
while True:  # one match takes long enough
    before = time.thread_time()
    pattern.match(subject)
    if time.thread_time() - before > TIME * 0.9: break
    subject = "a" + subject
async def matches(body):
    begin = time.time()
    pattern.match(subject)  # here
    return str(begin)
async def reads(body):
    a, b = socket.socketpair()
    a.settimeout(TIME)
    begin = time.time()
    try:
        a.recv(1)  # here
    except OSError: pass
    a.close(); b.close()
    return str(begin)
data = random.Random(1).randbytes(12 << 20)
async def zips(body):
    begin = time.time()
    while time.time() < begin + TIME: zlib.compress(data)  # here
    return str(begin)
async def fine(body):
    await asyncio.sleep(0.01)
async def computes(body):
    await asyncio.sleep(0)
    count(time.time() + TIME)
async def waits(body):
    await asyncio.sleep(0)
    time.sleep(TIME)
`

// Run causes blocks, and counts the correct reports. It also measures functions that share a worker
// with one that blocks: before it starts, until it is isolated, and afterwards.
func (c *BlockedCommand) Run(ctx context.Context) error {
	if c.Blocks < 5 || c.For < time.Second {
		return errors.New("--blocks must be at least 5, --for 1s")
	}
	return rig.RunParts(ctx, c.Only, rig.Part{Name: "reported", Run: c.reported}, rig.Part{Name: "isolated", Run: c.isolated})
}

// madeBlock is a block that a function caused.
type madeBlock struct {
	function string
	at       time.Time
}

// reported counts the blocks that drover reports. Two processes run three calls of blockers at
// once, with other calls.
func (c *BlockedCommand) reported(ctx context.Context) (err error) {
	causes := []struct{ function, in string }{{"sleeps", "sleeps"}, {"counts", "count"}, {"matches", "matches"}, {"reads", "reads"}, {"zips", "zips"}}
	type seen struct {
		worker.Block
		at time.Time
	}
	var mu sync.Mutex
	blocks, all, twice := make(map[string]madeBlock), make(map[string]seen), 0
	p, end, err := pythonPool(ctx, blockers, []string{"sleeps", "counts", "matches", "reads", "zips", "fine"}, func(cfg *workers.Config) {
		cfg.Settings.Processes = 2
		cfg.Blocking = func(b worker.Block) {
			mu.Lock()
			defer mu.Unlock()
			switch _, known := all[b.Message]; {
			case !known:
				all[b.Message] = seen{b, time.Now()}
			case !b.Over:
				twice++ // a call causes one block
			}
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := ready(ctx, p, 2); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	invoke := func(function, id string) []byte {
		h, err := p.HandlerOf(function)
		if err == nil {
			var output []byte
			if output, err = h.Handle(ctx, &triggers.Message{ID: id, Attempt: 1}); err == nil {
				return output
			}
		}
		cancel(err)
		return nil
	}
	var beside, making sync.WaitGroup
	over := make(chan struct{})
	for range 8 {
		beside.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-over:
					return
				default:
					invoke("fine", "fine")
				}
			}
		})
	}
	var next atomic.Int64
	for range 3 {
		making.Go(func() {
			for n := next.Add(1); n <= int64(c.Blocks) && ctx.Err() == nil; n = next.Add(1) {
				function, id := causes[n%5].function, fmt.Sprintf("m%d", n)
				var seconds float64
				if _, err := fmt.Sscan(string(invoke(function, id)), &seconds); err != nil {
					cancel(fmt.Errorf("%s did not report when it began: %w", function, err))
					return
				}
				mu.Lock()
				blocks[id] = madeBlock{function, time.UnixMicro(int64(seconds * 1e6))}
				mu.Unlock()
			}
		})
	}
	making.Wait()
	close(over)
	beside.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	time.Sleep(100 * time.Millisecond) // for reports after the last result
	mu.Lock()
	defer mu.Unlock()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "cause\tblocks\treported\tright function, message and line\tnoticed after, p50\tp99\t")
	row := func(name string, n, told, right int, late []time.Duration) {
		slices.Sort(late)
		at := func(q float64) string {
			if len(late) == 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f ms", late[int(q*float64(len(late)-1))].Seconds()*1e3)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%.1f %%\t%s\t%s\t\n", name, n, told, 100*float64(right)/float64(n), at(0.5), at(0.99))
	}
	n, told, right := 0, 0, 0
	for _, cause := range causes {
		place := lineIn(blockers, cause.in)
		var count, heard, correct int
		var late []time.Duration
		for id, m := range blocks {
			if m.function != cause.function {
				continue
			}
			count++
			s, known := all[id]
			if !known {
				continue
			}
			heard++
			if s.Function == cause.function && strings.HasPrefix(s.Place, place) {
				correct++
				late = append(late, s.at.Sub(m.at))
			}
		}
		row(cause.function, count, heard, correct, late)
		n, told, right = n+count, told+heard, right+correct
	}
	row("all", n, told, right, nil)
	wrong := 0
	for id := range all {
		if _, known := blocks[id]; !known {
			wrong++
		}
	}
	fmt.Fprintf(table, "reported without a block, or twice\t\t%d\t\t\t\t\n", wrong+twice)
	return table.Flush()
}

// lineIn returns the number of the marked line in a function, in the form that a place starts with.
func lineIn(source, function string) string {
	in := ""
	for i, line := range strings.Split(source, "\n") {
		if _, name, is := strings.Cut(line, "def "); is {
			in, _, _ = strings.Cut(name, "(")
		}
		if in == function && strings.HasSuffix(line, "# here") {
			return fmt.Sprintf("function_app.py:%d in %s", i+1, function)
		}
	}
	return "no line of " + function
}

// took has the duration of a call, and its end.
type took struct {
	at   time.Time
	time time.Duration
}

// isolated measures the functions that share a worker with one that waits, and with one that
// computes.
func (c *BlockedCommand) isolated(ctx context.Context) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "neighbours of one that\tp99 before\tuntil it is moved\tfrom 5 s after it came\tmoved after\t")
	for _, function := range []string{"waits", "computes"} {
		if err := c.neighbours(ctx, table, function); err != nil {
			return fmt.Errorf("%s: %w", function, err)
		}
	}
	return table.Flush()
}

func (c *BlockedCommand) neighbours(ctx context.Context, table *tabwriter.Writer, function string) (err error) {
	moved := make(chan struct{})
	p, end, err := pythonPool(ctx, blockers, []string{"fine", function}, func(cfg *workers.Config) {
		cfg.Settings.Processes, cfg.OnBlocked = 2, workers.BlockedIsolate
		cfg.Moved = func(string, *handlers.Slots) { close(moved) }
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := ready(ctx, p, 2); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var all []took
	over := make(chan struct{})
	var calling sync.WaitGroup
	loop := func(name string, n int, keep bool) {
		h, err := p.HandlerOf(name)
		if err != nil {
			cancel(err)
			return
		}
		for range n {
			calling.Go(func() {
				for ctx.Err() == nil {
					select {
					case <-over:
						return
					default:
					}
					begin := time.Now()
					if _, err := h.Handle(ctx, &triggers.Message{ID: name, Attempt: 1}); err != nil {
						cancel(err)
					}
					if keep {
						mu.Lock()
						all = append(all, took{time.Now(), time.Since(begin)})
						mu.Unlock()
					}
				}
			})
		}
	}
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	loop("fine", 20, true)
	wait(c.For)
	came := time.Now()
	loop(function, 4, false)
	select {
	case <-moved:
	case <-ctx.Done():
	case <-time.After(rig.StuckAfter):
		cancel(errors.New("it was not moved"))
	}
	at := time.Now()
	wait(time.Until(came.Add(5 * time.Second)))
	back := time.Now()
	wait(c.For)
	close(over)
	calling.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	p99 := func(from, to time.Time) float64 {
		var of []time.Duration
		for _, t := range all {
			if t.at.After(from) && !t.at.After(to) {
				of = append(of, t.time)
			}
		}
		if len(of) == 0 {
			return 0
		}
		slices.Sort(of)
		return of[int(0.99*float64(len(of)-1))].Seconds() * 1e3
	}
	before, after := p99(time.Time{}, came), p99(back, time.Now())
	fmt.Fprintf(table, "%s\t%.1f ms\t%.1f ms\t%.1f ms (%.2f of before)\t%.1f s\t\n", function, before, p99(came, at), after, after/before, at.Sub(came).Seconds())
	return nil
}
