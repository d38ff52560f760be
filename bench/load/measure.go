package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/bench/proc"
	"github.com/drover-run/drover/bench/work"

	"github.com/drover-run/drover/bench/rig"
)

// Options control how a cell is measured.
type Options struct {
	Warm     time.Duration // before the window
	Window   time.Duration
	Syscalls proc.SyscallCounter
}

// Result is one measurement of a cell. The values per message are divided by the messages that ended
// in the window.
type Result struct {
	PerSecond                       float64
	DaemonCPU, WorkerCPU, BrokerCPU time.Duration // a message
	// System calls and context switches a message; System calls are negative where they could not
	// be counted. Those of the work itself are left out.
	DaemonCalls, WorkerCalls, BrokerCalls          float64
	DaemonSwitches, WorkerSwitches, BrokerSwitches float64
	P50, P99                                       time.Duration // from the sender to the function; with a rate only
	Messages                                       uint64        // that ended in the window
}

// CPU is the CPU time of a message in all processes except the broker.
func (r Result) CPU() time.Duration { return r.DaemonCPU + r.WorkerCPU }

// startLimit bounds the start of a contender, and measureLimit all of a measurement: filling a queue by
// a client in Python takes up to a minute.
const (
	startLimit   = 60 * time.Second
	measureLimit = 4 * time.Minute
	startPause   = 50 * time.Millisecond // between attempts
)

var errTooLong = fmt.Errorf("the measurement took longer than %v", measureLimit)

// Measure measures one contender with one cell.
func Measure(ctx context.Context, c Contender, cell Cell, o Options) (r Result, err error) {
	err = withSystem(ctx, c, Run{Cell: cell}, func(ctx context.Context, run Run, s System) error {
		if cell.Rate == 0 {
			r, err = o.measureFull(ctx, c, run, s)
		} else {
			r, err = o.measureArrivals(ctx, run, s)
		}
		return err
	})
	return r, err
}

// withSystem opens a contender in its own directory, and closes it. It takes at most measureLimit.
func withSystem(ctx context.Context, c Contender, run Run, do func(context.Context, Run, System) error) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, measureLimit, errTooLong)
	defer cancel()
	if run.Dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run.Dir)) }()
	if err := os.Mkdir(run.CountsDir(), 0o700); err != nil {
		return err
	}
	system, err := c.Open(ctx, run)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, system.Close()) }()
	if err := do(ctx, run, system); err != nil {
		return fmt.Errorf("%s, %s: %w", c.Name, run.Cell, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// measureFull measures with a queue that has messages all the time.
func (o Options) measureFull(ctx context.Context, c Contender, run Run, s System) (Result, error) {
	if run.Cell.Time == 0 {
		o.Warm = min(o.Warm, time.Second) // its queue is long enough to fill
	}
	if run.Cell.Waits() {
		o.Warm += c.Warm
	}
	n := run.Cell.fillFor(c, o.Warm+o.Window)
	if err := s.Fill(ctx, n); err != nil {
		return Result{}, fmt.Errorf("filling the queue with %d messages: %w", n, err)
	}
	if err := s.Start(ctx); err != nil {
		return Result{}, err
	}
	if err := waitForFirst(ctx, run, s, 1); err != nil {
		return Result{}, err
	}
	// A queue that empties too soon has a shorter warm-up and window.
	early := func(c work.Counts) bool { return c.Ended > uint64(n)*4/10 }
	if err := waitForCounts(ctx, run, o.Warm, early); err != nil && !errors.Is(err, errTooLate) {
		return Result{}, err
	}
	return o.window(ctx, run, s, func(c work.Counts) bool { return c.Ended > uint64(n)*95/100 })
}

// measureArrivals measures with messages that arrive at a rate.
func (o Options) measureArrivals(ctx context.Context, run Run, s System) (r Result, err error) {
	if err := s.Start(ctx); err != nil {
		return Result{}, err
	}
	if err := s.Send(ctx, 1, 0); err != nil {
		return Result{}, err
	}
	if err := waitForFirst(ctx, run, s, 1); err != nil {
		return Result{}, err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	var sender sync.WaitGroup
	sent := make(chan error, 1)
	sender.Go(func() {
		n := int(float64(run.Cell.Rate) * (o.Warm + o.Window + startLimit).Seconds()) // it is stopped
		sent <- s.Send(sending, n, run.Cell.Rate)
	})
	defer sender.Wait()
	defer stop()
	if err := rig.Pause(ctx, o.Warm); err != nil {
		return Result{}, err
	}
	before, err := work.ReadCounts(run.CountsDir())
	if err != nil {
		return Result{}, err
	}
	if r, err = o.window(ctx, run, s, func(work.Counts) bool { return len(sent) > 0 }); err != nil {
		return Result{}, err
	}
	if len(sent) > 0 {
		return Result{}, fmt.Errorf("the sender ended before the window: %w", <-sent)
	}
	latencies, err := work.ReadLatencies(run.CountsDir(), before)
	if err != nil {
		return Result{}, err
	}
	if len(latencies) == 0 {
		return Result{}, errors.New("no message arrived in the window")
	}
	slices.Sort(latencies)
	r.P50, r.P99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	return r, nil
}

// reading is taken at both ends of a window.
type reading struct {
	at                      time.Time
	counts                  work.Counts
	daemon, workers, broker proc.Usage
}

func read(run Run, p Processes) (r reading, err error) {
	parts := []struct {
		into *proc.Usage
		pids []int
	}{{&r.daemon, p.Daemon}, {&r.workers, p.Workers}, {&r.broker, p.Broker}}
	for _, part := range parts {
		if *part.into, err = proc.Sum(part.pids); err != nil {
			return r, err
		}
	}
	r.at = time.Now()
	r.counts, err = work.ReadCounts(run.CountsDir())
	return r, err
}

// window measures until it is over, or until ends reports that it must end.
func (o Options) window(ctx context.Context, run Run, s System, ends func(work.Counts) bool) (r Result, err error) {
	processes, err := s.Processes()
	if err != nil {
		return r, err
	}
	r.DaemonCalls, r.WorkerCalls, r.BrokerCalls = -1, -1, -1
	var counted func() error
	if o.Syscalls.Tool != "" && !o.Syscalls.Disturbs {
		counted = o.countCalls(ctx, run, processes, o.Window, &r)
	}
	before, err := read(run, processes)
	if err != nil {
		return r, err
	}
	if err := waitForCounts(ctx, run, o.Window, ends); err != nil && !errors.Is(err, errTooLate) {
		return r, err
	}
	// Processes that have started since count from their start.
	if processes, err = s.Processes(); err != nil {
		return r, err
	}
	after, err := read(run, processes)
	if err != nil {
		return r, err
	}
	if counted == nil && o.Syscalls.Tool != "" {
		counted = o.countCalls(ctx, run, processes, min(o.Window, 2*time.Second), &r)
	}
	if counted != nil {
		if err := counted(); err != nil {
			return r, err
		}
	}
	r.Messages = after.counts.Ended - before.counts.Ended
	if r.Messages == 0 {
		return r, errors.New("no message ended in the window")
	}
	n := float64(r.Messages)
	r.PerSecond = n / after.at.Sub(before.at).Seconds()
	each := func(after, before proc.Usage) (time.Duration, float64) {
		used := after.Sub(before)
		return time.Duration(float64(used.CPU) / n), float64(used.Switches) / n
	}
	r.DaemonCPU, r.DaemonSwitches = each(after.daemon, before.daemon)
	r.WorkerCPU, r.WorkerSwitches = each(after.workers, before.workers)
	r.BrokerCPU, r.BrokerSwitches = each(after.broker, before.broker)
	return r, nil
}

// countCalls counts the system calls of all parts for a time. The function that it returns waits
// for the end, and writes the figures.
func (o Options) countCalls(ctx context.Context, run Run, p Processes, d time.Duration, r *Result) func() error {
	var counting sync.WaitGroup
	parts := []struct {
		pids []int
		into *float64
		n    int64
		err  error
	}{{pids: p.Daemon, into: &r.DaemonCalls}, {pids: p.Workers, into: &r.WorkerCalls}, {pids: p.Broker, into: &r.BrokerCalls}}
	functions := 1 // the part that runs functions
	if len(p.Workers) == 0 {
		functions = 0
	}
	start := time.Now()
	before, err := work.ReadCounts(run.CountsDir())
	for i := range parts {
		counting.Go(func() { parts[i].n, parts[i].err = o.Syscalls.Count(ctx, parts[i].pids, d) })
	}
	return func() error {
		counting.Wait()
		after, failed := work.ReadCounts(run.CountsDir())
		// The tool takes a while to start, in which it counts nothing.
		counted := d.Seconds() / time.Since(start).Seconds()
		for i, part := range parts {
			failed = errors.Join(failed, part.err)
			calls := float64(part.n)
			if i == functions {
				calls -= float64(after.OwnCalls-before.OwnCalls) * counted
			}
			if n := float64(after.Ended-before.Ended) * counted; n > 0 {
				*part.into = max(calls, 0) / n
			}
		}
		return errors.Join(err, failed)
	}
}

// waitForFirst waits until the first messages have ended, n of them. A process of the system that ends is an error.
func waitForFirst(ctx context.Context, run Run, s System, n uint64) error {
	for end := time.Now().Add(startLimit); ; {
		err := waitForCounts(ctx, run, time.Second, func(c work.Counts) bool { return c.Ended >= n })
		if !errors.Is(err, errTooLate) {
			return err
		}
		if _, ended := s.Processes(); ended != nil || time.Now().After(end) {
			return fmt.Errorf("the first messages were not handled: %w", errors.Join(err, ended))
		}
	}
}

var errTooLate = errors.New("too late")

// waitForCounts waits until so is true of the counts; after a time it returns errTooLate.
func waitForCounts(ctx context.Context, run Run, limit time.Duration, so func(work.Counts) bool) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		counts, err := work.ReadCounts(run.CountsDir())
		if err != nil || so(counts) {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return errTooLate
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
