package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler/hostinfo"
	"github.com/drover-run/drover/triggers"
)

// gridRun runs the grid of a function. It is used once.
type gridRun struct {
	cfg      *configs.Config
	name     string
	asked    tune.Asked
	messages []*triggers.Message
	std      *IO
	say      func(format string, args ...any) // what is done, as it is

	began, end time.Time
	forAuto    time.Duration // of the time
	look       tune.Look
	rig        *tuneRig      // nil: none
	swap       time.Duration // what it took lately to have another
	report     *tune.Report
	used       time.Duration // processor time of workers that have ended
}

const (
	// lookCalls and lookLeast are for how many calls, and how long, the first look goes on at
	// least; lookMost ends it when a call has ended.
	lookCalls = 50
	lookLeast = 500 * time.Millisecond
	lookMost  = 1500 * time.Millisecond
	// probeLeast is the shortest run in which there is time to find out whether an async
	// function uses its loop's executor; probeGain is the gain by threads that tells.
	probeLeast   = 15 * time.Second
	probeGain    = 1.3
	probeThreads = 16
	probeCalls   = 64 // in flight
	// settlePart is the part of a cell's time that is for settling, at most settleMost.
	settlePart = 0.25
	settleMost = 3 * time.Second
	// notAlone is from how many cores on, that others used, it is said.
	notAlone = 0.3
	// tuneClose is kept for the end of the last workers.
	tuneClose = 300 * time.Millisecond
)

// run measures until all is measured, the time is up, or ctx ends, and fills the report. The
// error says that there is nothing to report.
func (t *gridRun) run(ctx context.Context, length time.Duration) (err error) {
	t.began = time.Now()
	t.end, t.forAuto = t.began.Add(length), autoTime(length)
	timed, cancel := context.WithDeadline(ctx, t.end)
	defer cancel()
	defer func() { err = errors.Join(err, t.drop(0)) }()
	reader, own := hostinfo.New(), telemetry.ProcessCPU()
	before, _ := reader.Look() // what cannot be read is unknown
	if err := t.first(timed, length); err != nil {
		return t.because(ctx, err, length)
	}
	plan := tune.Grid(t.look, t.asked, t.gridTime())
	t.report.Skipped = plan.Skipped
	if len(plan.Cells) == 0 {
		return fmt.Errorf("--for %v is too short: a cell takes %v including the start of its workers; increase it", length, t.look.Needs().Round(100*time.Millisecond))
	}
	t.say("%d settings, %.1f s for each", len(plan.Cells), plan.Each.Seconds())
	for i, s := range plan.Cells {
		if timed.Err() == nil && t.gridTime() > 0 {
			t.cell(timed, plan.Cells[i:], i+1, len(plan.Cells))
			continue
		}
		t.late(s)
	}
	t.compare(ctx, timed)
	if now, err := reader.Look(); err == nil && t.drop(t.patience(ctx)) == nil {
		others := hostinfo.Others(before, now, t.used+telemetry.ProcessCPU()-own, time.Since(t.began))
		if others > notAlone { // and not if it is not known
			t.note("other programs used %.1f cores while it ran: on a quiet machine the numbers would be others", others)
		}
	}
	t.report.Stopped = ctx.Err() != nil
	t.report.Took = time.Since(t.began).Seconds()
	t.report.Choose()
	return nil
}

// gridTime is what is left for the grid.
func (t *gridRun) gridTime() time.Duration { return time.Until(t.end) - t.forAuto - tuneClose }

// because says of an error why it is one: what was asked for, or what the code does.
func (t *gridRun) because(ctx context.Context, err error, length time.Duration) error {
	switch {
	case ctx.Err() != nil:
		return errors.New("stopped before anything was measured")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("--for %v is too short: it ended before a worker was ready and a call had ended; increase it", length)
	}
	return err
}

// drop ends the rig, if there is one.
func (t *gridRun) drop(patience time.Duration) error {
	if t.rig == nil {
		return nil
	}
	rig := t.rig
	t.rig = nil
	err := rig.close(patience)
	t.used += rig.f.Pool.CPU()
	return err
}

// take has a rig with the settings under load: the one that there is, or another.
func (t *gridRun) take(ctx context.Context, s tune.Settings) error {
	if t.rig != nil && t.rig.f.LoadError() == nil && t.rig.become(s) && t.rig.calm(ctx, t.patience(ctx)) {
		return nil
	}
	began := time.Now()
	if err := t.drop(t.patience(ctx)); err != nil {
		return err
	}
	rig, err := openRig(ctx, t.cfg, t.name, s, tune.NewSource(t.messages), t.std)
	if err != nil {
		return err
	}
	t.rig, t.swap = rig, time.Since(began)
	return nil
}

// patience is how long calls may go on that nobody measures any more: their work is real, and
// is better ended than cut.
func (t *gridRun) patience(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	return min(max(2*t.look.Call, 200*time.Millisecond), 2*time.Second)
}

// first looks at the function with one process and one call at a time.
func (t *gridRun) first(ctx context.Context, length time.Duration) error {
	began := time.Now()
	one := tune.Settings{Processes: 1, Threads: 1, Coroutines: 1}
	code, _ := t.cfg.Functions[t.name].Handler.Code()
	if code.Language == configs.Node {
		one.Threads = 0
	}
	if err := t.take(ctx, one); err != nil {
		return &StartError{err}
	}
	startUp := time.Since(began)
	c := tune.Cell{}
	t.rig.source.OpenWindow(time.Now())
	looked := time.Now()
	err := t.rig.count(ctx, &c, func() error {
		return t.rig.wait(ctx, length/2, func() bool {
			n, took := t.rig.source.CountEnded(), time.Since(looked)
			return n > 0 && (took >= lookMost || n >= lookCalls && took >= lookLeast) || t.rig.f.LoadError() != nil
		})
	})
	if err != nil {
		return err
	}
	if c.Calls == 0 {
		if err := t.rig.f.LoadError(); err != nil {
			return err
		}
		return fmt.Errorf("no call of function %s ended within %v, half of the time; increase --for", t.name, (length / 2).Round(time.Second))
	}
	why, detail := t.rig.lastFailure()
	if c.Failed == c.Calls {
		return fmt.Errorf("function %s fails on every message, %d of %d, so it cannot be tuned; the last error: %s\n%s", t.name, c.Failed, c.Calls, why, detail)
	}
	if c.Failed > 0 {
		t.note("of the first %d calls %d failed, the last with: %s", c.Calls, c.Failed, term.OneLine(why, 200))
	}
	handler := t.rig.f.Handler.(interface{ Async() bool })
	t.look = tune.Look{
		Async: handler.Async(), Threads: code.Language != configs.Node, Cores: runtime.GOMAXPROCS(0), Busy: c.CPU,
		Call: time.Duration(c.P50 * float64(time.Second)), StartUp: startUp, Memory: c.Memory,
	}
	if c.CPU == 0 && t.rig.f.Pool.Usage().CPU == 0 {
		t.look.Busy = 1 // this system does not tell
	}
	if seen, err := hostinfo.New().Look(); err == nil {
		t.look.Free = seen.MemoryAvailable
	}
	t.report.Async, t.report.Cores = t.look.Async, t.look.Cores
	kind := "sync"
	if t.look.Async {
		kind = "async"
	}
	t.say("first look: %s, a call takes %s and %.0f %% of a core; a worker starts in %.1f s and has %d MiB", kind, tune.Seconds(c.P50), 100*t.look.Busy, startUp.Seconds(), c.Memory>>20)
	t.heed()
	return t.probe(ctx, length)
}

// heed says which of the numbers that were asked for make no difference, and leaves them out.
func (t *gridRun) heed() {
	if !t.look.Async && len(t.asked.Coroutines) > 0 {
		t.asked.Coroutines = nil
		t.note("--coroutines are for async functions, and %s is none: they were left out", t.name)
	}
	code, _ := t.cfg.Functions[t.name].Handler.Code()
	var others []string
	for _, name := range slices.Sorted(maps.Keys(t.cfg.Functions)) {
		if c, found := t.cfg.Functions[name].Handler.Code(); found && c.App == code.App && name != t.name {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		t.note("the numbers are the app's, so they are for %s, too, which had no load here", strings.Join(others, ", "))
	}
	if n := t.cfg.Functions[t.name].Concurrency; n > 0 {
		t.note("the function's concurrency in the configuration holds it at %d messages in flight, whatever the settings", n)
	}
}

func (t *gridRun) note(format string, args ...any) {
	t.report.Notes = append(t.report.Notes, fmt.Sprintf(format, args...))
}

// probe finds out whether an async function gains by threads, which its loop's executor has.
func (t *gridRun) probe(ctx context.Context, length time.Duration) error {
	if !t.look.Async || !t.look.Threads || len(t.asked.Threads) > 0 {
		return nil
	}
	if length < probeLeast {
		t.note("there was no time to find out whether the function uses its loop's executor, so threads were left as they are")
		return nil
	}
	var rates []float64
	for _, threads := range []int{1, probeThreads, 1} {
		if err := t.take(ctx, tune.Settings{Processes: 1, Threads: threads, Coroutines: probeCalls}); err != nil {
			return &StartError{err}
		}
		c, err := t.rig.measure(ctx, max(200*time.Millisecond, t.look.Call), max(lookLeast, 2*t.look.Call))
		if err != nil {
			return err
		}
		rates = append(rates, c.Throughput)
		if len(rates) == 2 && rates[1] <= probeGain*rates[0] {
			return nil
		}
	}
	// The machine may just have had more time at the second measurement: then the third is as fast.
	one := max(rates[0], rates[2])
	if t.look.Executor = rates[1] > probeGain*one; t.look.Executor {
		t.say("with %d threads it does %s calls/s, with one %s: it uses its loop's executor", probeThreads, tune.Number(rates[1]), tune.Number(one))
	}
	return nil
}

// cell measures the first of the settings that are left.
func (t *gridRun) cell(ctx context.Context, left []tune.Settings, number, all int) {
	s := left[0]
	if err := t.take(ctx, s); err != nil {
		if ctx.Err() != nil {
			t.late(s)
		} else {
			c := tune.Cell{Settings: s, Problem: term.OneLine("it did not start: "+err.Error(), 200)}
			t.report.Cells = append(t.report.Cells, c)
			t.say("%d of %d: %v: %s", number, all, s, c.Problem)
		}
		return
	}
	each := t.share(left)
	settle := min(time.Duration(settlePart*float64(each)), settleMost)
	c, err := t.rig.measure(ctx, settle, each-settle)
	if err != nil {
		t.late(s) // half of it says nothing
		return
	}
	c.Settings = s
	t.report.Cells = append(t.report.Cells, c)
	text := fmt.Sprintf("%s calls/s, p99 %s, %.2f cores", tune.Number(c.Throughput), tune.Seconds(c.P99), c.CPU)
	if c.Problem != "" {
		text = c.Problem
	} else if c.Failed > 0 {
		why, _ := t.rig.lastFailure()
		text += fmt.Sprintf(", %d failed: %s", c.Failed, term.OneLine(why, 80))
	}
	t.say("%d of %d: %v: %s", number, all, s, text)
}

// late leaves settings out that could not be measured any more.
func (t *gridRun) late(s tune.Settings) {
	t.report.Skipped = append(t.report.Skipped, tune.Skipped{Settings: s, Why: "the run was over before"})
}

// share is the time for the first of the settings that are left, whose workers are there; those
// of others have yet to start.
func (t *gridRun) share(left []tune.Settings) time.Duration {
	rest := t.gridTime()
	for i := range left[1:] {
		if left[i+1].Processes != left[i].Processes || left[i+1].Threads != left[i].Threads && !t.rig.live() {
			rest -= t.swap
		}
	}
	return max(rest/time.Duration(len(left)), 100*time.Millisecond)
}
