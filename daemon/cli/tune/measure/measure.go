// Package measure runs a function under load with the settings of a grid, for drover tune: in the
// app's real workers, with the real handler and dispatcher, and a source that returns the messages
// of a file repeatedly. The command calls Run, from one goroutine.
package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler/hostinfo"
	"github.com/drover-run/drover/triggers"
)

// Options are the input of Run. All are required.
type Options struct {
	// Apps has the configuration, and the options of the apps.
	Apps      apps.Options
	Function  string // its name
	Requested tune.Requested
	Messages  []*triggers.Message // at least one
	// Report is filled in by the command. Run adds its measurements.
	Report *tune.Report
	// Print prints a line of progress.
	Print func(format string, args ...any)
	// Begin reports that the cell with this number is measured next, and Measured that it was added to
	// the report, with its result as text. Run calls both from the caller's goroutine.
	Begin    func(number, all int, s tune.Settings)
	Measured func(number, all int, result string)
}

// StartError reports that the workers could not start, because of Err.
type StartError struct{ Err error }

func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// Run measures until all cells are measured, the length is over, or ctx ends, and fills the
// report. If it returns an error, the report has no results. The error wraps a StartError if the
// workers did not start.
func Run(ctx context.Context, o Options, length time.Duration) error {
	return (&gridRun{Options: o, latencies: make(map[tune.Settings]*telemetry.Latencies)}).runGrid(ctx, length)
}

// gridRun runs the grid of a function. It is used once.
type gridRun struct {
	Options

	began, end time.Time
	autoTime   time.Duration // how much of the time is for auto
	baseline   tune.Baseline
	rig        *rig          // nil: none
	changeTime time.Duration // how long the latest change of rigs took
	// The durations of the calls in all rounds, by cell.
	latencies map[tune.Settings]*telemetry.Latencies
	endedCPU  time.Duration // CPU time of workers that have ended
}

const (
	// The baseline takes at least baselineCalls and minBaseline. After maxBaseline it ends with
	// the next call.
	baselineCalls = 50
	minBaseline   = 500 * time.Millisecond
	maxBaseline   = 1500 * time.Millisecond
	// settleShare is the fraction of a cell's time that is for settling, at most maxSettle.
	settleShare = 0.25
	maxSettle   = 3 * time.Second
	// reportedCores is how many cores other programs must use to be reported.
	reportedCores = 0.3
	// closeTime is reserved for stopping the last workers.
	closeTime = 300 * time.Millisecond
)

// runGrid measures until all cells are measured, the time is up, or ctx ends, and fills the
// report.
func (t *gridRun) runGrid(ctx context.Context, length time.Duration) (err error) {
	t.began = time.Now()
	t.end, t.autoTime = t.began.Add(length), autoTime(length)
	timed, cancel := context.WithDeadline(ctx, t.end)
	defer cancel()
	defer func() { err = errors.Join(err, t.closeRig(0)) }()
	reader, own := hostinfo.New(), telemetry.ProcessCPU()
	before, _ := reader.ReadMachine() // values that cannot be read are unknown
	if err := t.measureBaseline(timed, length); err != nil {
		return t.explainError(ctx, err, length)
	}
	plan := tune.PlanGrid(t.baseline, t.Requested, t.gridTime())
	t.Report.Skipped = plan.Skipped
	if len(plan.Cells) == 0 {
		return fmt.Errorf("--for %v is too short: a cell takes %v including the start of its workers; increase it", length, t.baseline.CellTime().Round(100*time.Millisecond))
	}
	runs := plan.Runs()
	t.Print("%d settings, each %d times for %.1f s", len(plan.Cells), plan.Rounds, plan.Each.Seconds())
	for i, s := range runs {
		switch {
		case t.hasProblem(s):
		case timed.Err() == nil && t.gridTime() > 0:
			t.Begin(i+1, len(runs), s)
			t.measureCell(timed, runs[i:], i+1, len(runs))
		default:
			t.skipSettings(s)
		}
	}
	t.compareAuto(ctx, timed)
	if now, err := reader.ReadMachine(); err == nil && t.closeRig(t.drainTime(ctx)) == nil {
		others := hostinfo.OthersBusy(before, now, t.endedCPU+telemetry.ProcessCPU()-own, time.Since(t.began))
		if !math.IsNaN(others) {
			t.Report.Others = others
		}
		if others > reportedCores { // false if it is unknown
			t.addNote("other programs used %.1f cores during the run: the results would differ on an idle machine", others)
		}
	}
	t.Report.Stopped = ctx.Err() != nil
	t.Report.Took = time.Since(t.began).Seconds()
	t.Report.ChooseBest()
	return nil
}

// gridTime returns how much time is left for the grid.
func (t *gridRun) gridTime() time.Duration { return time.Until(t.end) - t.autoTime - closeTime }

// explainError returns, instead of err, the error of a run that was too short or was stopped.
func (t *gridRun) explainError(ctx context.Context, err error, length time.Duration) error {
	switch {
	case ctx.Err() != nil:
		return errors.New("stopped before anything was measured")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("--for %v is too short: it ended before a worker was ready and a call had ended; increase it", length)
	}
	return err
}

// closeRig closes the rig, if there is one.
func (t *gridRun) closeRig(patience time.Duration) error {
	if t.rig == nil {
		return nil
	}
	old := t.rig
	t.rig = nil
	err := old.endLoad(patience)
	t.endedCPU += old.f.Pool.CPU()
	return err
}

// useSettings puts a rig with the settings under load: the current one, or a new one.
func (t *gridRun) useSettings(ctx context.Context, s tune.Settings) error {
	if t.rig != nil && t.rig.f.LoadError() == nil && t.rig.changeSettings(s) && t.rig.waitForSlots(ctx, t.drainTime(ctx)) {
		return nil
	}
	began := time.Now()
	if err := t.closeRig(t.drainTime(ctx)); err != nil {
		return err
	}
	opened, err := openRig(ctx, t.Apps, t.Function, t.Messages, s)
	if err != nil {
		return err
	}
	t.rig, t.changeTime = opened, time.Since(began)
	return nil
}

// drainTime returns how long calls that are no longer measured may take to end. Their work is real,
// so it is better to wait for them than to cancel them.
func (t *gridRun) drainTime(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	return min(max(2*t.baseline.Call, 200*time.Millisecond), 2*time.Second)
}

// measureBaseline measures the function with one process and one call at a time.
func (t *gridRun) measureBaseline(ctx context.Context, length time.Duration) error {
	began := time.Now()
	one := tune.Settings{Processes: 1, Threads: 1, Coroutines: 1}
	code, _ := t.Apps.Config.Functions[t.Function].Handler.Code()
	if code.Language == configs.Node {
		one.Threads = 0
	}
	if err := t.useSettings(ctx, one); err != nil {
		return &StartError{err}
	}
	startUp := time.Since(began)
	c := tune.Cell{}
	looked := time.Now()
	_, err := t.rig.countWhile(ctx, &c, 1, func() error {
		return t.rig.waitUntil(ctx, length/2, func() bool {
			n, took := t.rig.source.countEnded(), time.Since(looked)
			return n > 0 && (took >= maxBaseline || n >= baselineCalls && took >= minBaseline) || t.rig.f.LoadError() != nil
		})
	})
	if err != nil {
		return err
	}
	if c.Calls == 0 {
		if err := t.rig.f.LoadError(); err != nil {
			return err
		}
		return fmt.Errorf("no call of function %s ended within %v, half of the time; increase --for", t.Function, (length / 2).Round(time.Second))
	}
	why, detail := t.rig.lastFailure()
	if c.Failed == c.Calls {
		return fmt.Errorf("function %s fails on every message, %d of %d, so it cannot be tuned; the last error: %s\n%s", t.Function, c.Failed, c.Calls, why, detail)
	}
	if c.Failed > 0 {
		t.addNote("of the first %d calls %d failed, the last with: %s", c.Calls, c.Failed, term.OneLine(why, 200))
	}
	handler := t.rig.f.Handler.(interface{ IsAsync() bool })
	t.baseline = tune.Baseline{
		Async: handler.IsAsync(), Threads: code.Language != configs.Node, Cores: runtime.GOMAXPROCS(0), Busy: c.CPU,
		Call: time.Duration(c.P50 * float64(time.Second)), StartUp: startUp, Memory: c.Memory,
	}
	if c.CPU == 0 && t.rig.f.Pool.Usage().CPU == 0 {
		t.baseline.Busy = 1 // this system does not report it
	}
	if seen, err := hostinfo.New().ReadMachine(); err == nil {
		t.baseline.Free = seen.MemoryAvailable
	}
	t.Report.Async, t.Report.Cores = t.baseline.Async, t.baseline.Cores
	kind := "sync"
	if t.baseline.Async {
		kind = "async"
	}
	t.Print("first measurement: %s, a call takes %s and %.0f %% of a core; a worker starts in %.1f s and uses %d MiB", kind, tune.FormatSeconds(c.P50), 100*t.baseline.Busy, startUp.Seconds(), c.Memory>>20)
	t.checkNumbers()
	t.checkMessages()
	return nil
}

// checkNumbers drops the requested numbers that make no difference, and notes what limits others.
func (t *gridRun) checkNumbers() {
	if !t.baseline.Async && len(t.Requested.Coroutines) > 0 {
		t.Requested.Coroutines = nil
		t.addNote("--coroutines applies only to async functions, and %s is not async: ignored", t.Function)
	}
	if t.baseline.Async && len(t.Requested.Threads) > 0 {
		t.Requested.Threads = nil
		t.addNote("--threads applies only to functions that are not async, and %s is async: ignored", t.Function)
	}
	code, _ := t.Apps.Config.Functions[t.Function].Handler.Code()
	var others []string
	for _, name := range slices.Sorted(maps.Keys(t.Apps.Config.Functions)) {
		if c, found := t.Apps.Config.Functions[name].Handler.Code(); found && c.App == code.App && name != t.Function {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		t.addNote("the numbers apply to the whole app, so also to %s, which had no load here", strings.Join(others, ", "))
	}
	if n := t.Apps.Config.Functions[t.Function].Concurrency; n > 0 {
		t.addNote("the function's concurrency in the configuration limits it to %d messages in flight, regardless of the settings", n)
	}
}

func (t *gridRun) addNote(format string, args ...any) {
	t.Report.Notes = append(t.Report.Notes, fmt.Sprintf(format, args...))
}

// measureCell measures the first of the settings that are left.
func (t *gridRun) measureCell(ctx context.Context, left []tune.Settings, number, all int) {
	s := left[0]
	if err := t.useSettings(ctx, s); err != nil {
		if ctx.Err() != nil {
			t.skipSettings(s)
		} else {
			c := tune.Cell{Settings: s, Problem: term.OneLine("it did not start: "+err.Error(), 200)}
			t.addRound(c, new(telemetry.Latencies))
			t.Measured(number, all, fmt.Sprintf("%v: %s", s, c.Problem))
		}
		return
	}
	each := t.timeForNext(left)
	settle := min(time.Duration(settleShare*float64(each)), maxSettle)
	c, took, err := t.rig.measureCell(ctx, settle, each-settle, t.countParts(each-settle))
	if err != nil {
		t.skipSettings(s) // half a measurement is useless
		return
	}
	c.Settings = s
	t.addRound(c, took)
	text := fmt.Sprintf("%s calls/s, p99 %s, %.2f cores", tune.FormatNumber(c.Throughput), tune.FormatSeconds(c.P99), c.CPU)
	if c.Problem != "" {
		text = c.Problem
	} else if c.Failed > 0 {
		why, _ := t.rig.lastFailure()
		text += fmt.Sprintf(", %d failed: %s", c.Failed, term.OneLine(why, 80))
	}
	t.Measured(number, all, fmt.Sprintf("%v: %s", s, text))
}

// skipSettings reports settings for which no time was left, unless they were measured in an earlier
// round, or are reported already.
func (t *gridRun) skipSettings(s tune.Settings) {
	if t.cellOf(s) != nil || slices.ContainsFunc(t.Report.Skipped, func(o tune.Skipped) bool { return o.Settings == s }) {
		return
	}
	t.Report.Skipped = append(t.Report.Skipped, tune.Skipped{Settings: s, Why: "the run was over before"})
}

// timeForNext returns the time for the first of the remaining settings, whose workers run; those
// of the others must still start.
func (t *gridRun) timeForNext(left []tune.Settings) time.Duration {
	rest := t.gridTime()
	for i := range left[1:] {
		if left[i+1].Processes != left[i].Processes || left[i+1].Threads != left[i].Threads && !t.rig.hasLiveThreads() {
			rest -= t.changeTime
		}
	}
	return max(rest/time.Duration(len(left)), 100*time.Millisecond)
}

const (
	// A measurement has up to mostParts parts, with time for callsPerPart calls, one after another, in
	// each. Their rates show how much the machine disturbs them.
	mostParts    = 4
	callsPerPart = 4
)

// countParts returns the number of parts of a measurement.
func (t *gridRun) countParts(length time.Duration) int {
	return int(min(max(length/max(callsPerPart*t.baseline.Call, 1), 1), mostParts))
}

// cellOf returns the cell of the report with the settings; nil if there is none.
func (t *gridRun) cellOf(s tune.Settings) *tune.Cell {
	for i := range t.Report.Cells {
		if t.Report.Cells[i].Settings == s {
			return &t.Report.Cells[i]
		}
	}
	return nil
}

// hasProblem reports whether an earlier round could not measure the settings.
func (t *gridRun) hasProblem(s tune.Settings) bool {
	c := t.cellOf(s)
	return c != nil && c.Problem != ""
}

// addRound adds the measurements of a round to the report.
func (t *gridRun) addRound(c tune.Cell, took *telemetry.Latencies) {
	all := t.cellOf(c.Settings)
	if all == nil {
		t.Report.Cells, t.latencies[c.Settings] = append(t.Report.Cells, c), took
		return
	}
	all.AddRound(c)
	took = t.latencies[c.Settings].Plus(took)
	t.latencies[c.Settings] = took
	all.P50, all.P99 = took.Quantile(0.5).Seconds(), took.Quantile(0.99).Seconds()
}

// checkMessages notes that the messages do not show what others need.
func (t *gridRun) checkMessages() {
	for _, m := range t.Messages[1:] {
		if !bytes.Equal(m.Body, t.Messages[0].Body) {
			return
		}
	}
	what := "all messages have the same body"
	if len(t.Messages) == 1 {
		what = "there is only one message"
	}
	t.addNote("%s: others may take longer, and need other settings; use messages of a typical day, as drover capture copies them", what)
}
