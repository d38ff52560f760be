package autoscale

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/scaler/autotune"
	"github.com/drover-run/drover/scaler/hostinfo"
)

// This file measures a pool and applies what scaler/autotune decides.

const (
	// tuneEvery is the time between two measurements while calls end; without calls, or while
	// settings do not change, it is tuneIdle. After restAfter without calls it is tuneRest, unless a call begins: each measurement reads
	// every function, and a thousand of them took half a percent of a core each second. While settings do not
	// change and no function uses lightShare of its slots, it is tuneLight: no decision depends on such measurements.
	tuneEvery  = 250 * time.Millisecond
	tuneIdle   = time.Second
	restAfter  = 30 * time.Second
	tuneRest   = 10 * time.Second
	tuneLight  = 4 * time.Second
	lightShare = 0.5
	// memoryEvery is how often the memory of processes is read, which takes longer than all other
	// readings; memoryHeld is how often while settings do not change.
	memoryEvery = 500 * time.Millisecond
	memoryHeld  = 5 * time.Second
	// contentionHeld is how often the use of the machine by others is read while settings do not
	// change. It takes 200 system calls.
	contentionHeld = 4 * time.Second
	// maxThreads and maxCoroutines are the maximum that auto chooses, in each process.
	maxThreads    = 512
	maxCoroutines = 16384
	// unmeasuredCoroutines is the minimum for a worker that does not measure its calls.
	unmeasuredCoroutines = 100
	// memoryShare is the fraction of the memory that a pool may use.
	memoryShare = 0.8
)

// tuner runs the controller of one pool. It is the pool's apps.Tuner.
type tuner struct {
	pool  *apps.Pool
	loads func(now time.Time) map[string]load // by function; functions without an entry do not count
	used  func() (share float64)              // the largest share of its slots that a function uses now
	apply func(autotune.Decision)
	move  func(function string, to *handlers.Slots)
	log   *slog.Logger

	contention *contention
	last       reading
	memory     struct {
		bytes uint64 // of the pool, when it was read last
		at    time.Time
	}

	mu            sync.Mutex
	bounds        autotune.Bounds
	free          autotune.Bounds // the bounds if no number was configured
	controller    *autotune.Controller
	decision      autotune.Decision
	level         autotune.Level // in force
	unsavedUndone bool           // the changes that are reverted for good have changed, and are not saved yet
	sample        autotune.Sample
	lastMachine   hostinfo.Machine
	delayed       time.Duration   // for how long the workers' threads waited for a core
	coresLogged   map[string]bool // the functions that logCores has logged
}

// load is the load of a function, as measured outside the pool.
type load struct {
	saturated bool
	inFlight  float64 // on average since the previous measurement
	limit     int     // in flight; 0: no limit
	timeout   time.Duration
}

// reading has the values of one measurement.
type reading struct {
	at       time.Time
	pool     time.Duration // the processor time of the workers
	daemon   time.Duration
	measures map[string]worker.Measures
}

// tuningBounds returns the bounds of an app's settings, as configured and as if no number
// was set. tunable means that threads can change while workers run.
func tuningBounds(app configs.App, tunable bool, cores int) (given, free autotune.Bounds) {
	free.Least = autotune.Settings{Processes: 1, Threads: 1, Coroutines: 1}
	free.Most = autotune.Settings{Processes: max(2*cores, 4), Threads: maxThreads, Coroutines: maxCoroutines}
	if !tunable {
		free.Least.Threads, free.Most.Threads = app.Threads, app.Threads
		// Such a worker does not measure its calls either: it starts with a number for
		// calls that wait.
		free.Least.Coroutines = unmeasuredCoroutines
	}
	given = free
	if !app.Scaled {
		given.Least.Processes, given.Most.Processes = app.Processes, app.Processes
	}
	if !app.AutoThreads {
		given.Least.Threads, given.Most.Threads = app.Threads, app.Threads
	}
	if !app.AutoCoroutines {
		given.Least.Coroutines, given.Most.Coroutines = app.Coroutines, app.Coroutines
	}
	return given, free
}

// newTuner returns the tuner of a pool that is ready. learned is from an earlier run of the
// daemon; nil for none.
func newTuner(pool *apps.Pool, given, free autotune.Bounds, learned *autotune.Learned, log *slog.Logger) *tuner {
	return &tuner{
		pool: pool, log: log, contention: newContention(),
		bounds: given, free: free, controller: autotune.New(given, learned),
	}
}

// runTuning measures until ctx ends. It passes its results to keep whenever a change of settings
// has been reverted for good.
func (t *tuner) runTuning(ctx context.Context, keep func(autotune.Learned)) {
	var active time.Time
	for ctx.Err() == nil {
		at := time.Now()
		busy := t.tuneOnce(at)
		if t.mustSave() {
			keep(t.exportLearned())
		}
		if busy {
			active = at
		}
		if busy && !t.isHeld() {
			waitFor(ctx, tuneEvery)
			continue
		}
		for waitFor(ctx, tuneIdle); time.Since(at) < t.readLull(at, active).pause() && ctx.Err() == nil; {
			waitFor(ctx, tuneIdle)
		}
	}
}

// lull is what decides how soon to measure again while no settings are tried.
type lull struct {
	busy     bool          // calls ended, or were in flight, during the last measurement
	idleFor  time.Duration // how long before it that was
	changed  bool          // the settings have changed since then, or change again
	used     float64       // see tuner
	inFlight int
}

// pause returns the time from one measurement to the next.
func (l lull) pause() time.Duration {
	switch {
	case l.busy && !l.changed && l.used < lightShare:
		return tuneLight
	case !l.busy && l.idleFor > restAfter && l.inFlight == 0:
		return tuneRest
	}
	return tuneIdle
}

// readLull returns the lull after a measurement at a time. active is when the last measurement was
// busy.
func (t *tuner) readLull(at, active time.Time) lull {
	return lull{
		busy: at.Equal(active), idleFor: at.Sub(active), used: t.used(), inFlight: t.pool.Stats().InFlight,
		changed: !t.isHeld() || t.measuredSettings() != settingsOf(t.pool),
	}
}

// measuredSettings returns the settings of the last measurement.
func (t *tuner) measuredSettings() autotune.Settings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sample.Settings
}

// settingsOf returns the settings of a pool.
func settingsOf(p *apps.Pool) autotune.Settings {
	s := p.Settings()
	return autotune.Settings{Processes: s.Processes, Threads: s.Threads, Coroutines: s.Coroutines}
}

// tuneOnce measures, decides and applies the decision. It reports whether calls have ended
// or are in flight.
func (t *tuner) tuneOnce(at time.Time) (busy bool) {
	s, busy := t.takeSample(at)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followSettings() // the pool is also scaled elsewhere
	e, indexes := t.pool.Epoch.Load(), make(map[string]int)
	for i, name := range t.pool.FunctionNames() {
		indexes[name] = i
	}
	for i := range s.Functions {
		s.Functions[i].Passed = e.PassedCalls(indexes[s.Functions[i].Name])
	}
	t.lastMachine, t.delayed = t.contention.machine, t.contention.waited
	t.sample = s
	t.adoptDecision(t.controller.Look(s), nil)
	t.logCores()
	return busy
}

// takeSample returns a sample of what happened since the previous measurement.
func (t *tuner) takeSample(at time.Time) (s autotune.Sample, busy bool) {
	stats, settings := t.pool.Stats(), settingsOf(t.pool)
	now := reading{at: at, pool: t.pool.CPU(), daemon: telemetry.ProcessCPU(), measures: make(map[string]worker.Measures)}
	memoryPause, contentionPause := memoryEvery, time.Duration(0)
	if t.isHeld() {
		memoryPause, contentionPause = memoryHeld, contentionHeld
	}
	if at.Sub(t.memory.at) >= memoryPause {
		t.memory.at, t.memory.bytes = at, ownMemory(t.pool.Usage())
	}
	c := t.contention
	if at.Sub(c.at) >= contentionPause {
		c.read(at, now.pool+now.daemon, stats.PIDs)
	}
	last := t.last
	elapsed := at.Sub(last.at)
	s = autotune.Sample{
		At: at.Sub(telemetry.ProcessStart), Ready: stats.Ready, Loading: stats.Starting > 0, Replacing: stats.Outdated > 0, Cores: c.machine.Cores, RunQueue: math.NaN(),
		Settings: settings, Memory: t.memory.bytes, MemoryLimit: t.memoryLimit(c.machine),
	}
	if !last.at.IsZero() && elapsed > 0 {
		s.CPU = (now.pool - last.pool).Seconds() / elapsed.Seconds()
		s.Daemon = (now.daemon - last.daemon).Seconds() / elapsed.Seconds()
		s.Others, s.RunQueue, s.Stolen, s.Throttled = c.others, c.runQueue, c.stolen, c.throttled
	}
	loads := t.loads(at)
	for _, m := range t.pool.Measures() {
		now.measures[m.Function] = m
		l, found := loads[m.Function]
		if !found {
			continue
		}
		was := last.measures[m.Function]
		f := autotune.Function{
			Name: m.Function, Async: m.Async, Done: (m.Calls - m.Failed) - (was.Calls - was.Failed), Failed: m.Failed - was.Failed, // calls that fail at once are no throughput
			Saturated: l.saturated, InFlight: l.inFlight, Limit: l.limit, Timeout: l.timeout,
			Measured: m.Measured - was.Measured, Wall: m.MeasuredWall - was.MeasuredWall, CPU: m.CPU - was.CPU, Held: m.Held - was.Held,
			AllWall: m.Wall - was.Wall, Looks: m.Looks - was.Looks, HeldGIL: m.HeldGIL - was.HeldGIL,
			Examined: examinedSince(was.Examined, m.Examined), Spread: spreadSince(was.Spread, m.Spread),
		}
		busy = busy || m.Calls > was.Calls || f.InFlight > 0
		s.Functions = append(s.Functions, f)
	}
	t.last = now
	return s, busy
}

func examinedSince(was, now worker.Examined) autotune.Examined {
	return autotune.Examined{
		Wall: now.Wall - was.Wall, CPU: now.CPU - was.CPU, Delayed: now.Delayed - was.Delayed,
		Locked: now.Locked - was.Locked, LockedMost: now.LockedMost - was.LockedMost,
	}
}

func spreadSince(was, now worker.Spread) autotune.Spread {
	return autotune.Spread{Log: now.Log - was.Log, LogSquares: now.LogSquares - was.LogSquares, Shares: now.Shares - was.Shares}
}

// isHeld reports whether settings do not change unless the load does.
func (t *tuner) isHeld() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.decision.Phase
	return p == autotune.PhaseHold || p == autotune.PhaseIdle || p == autotune.PhaseExplicit
}

// memoryLimit returns how many bytes the pool may use: its share of the sum of its own and the
// free memory.
func (t *tuner) memoryLimit(m hostinfo.Machine) uint64 {
	if m.MemoryLimit == 0 {
		return 0
	}
	return uint64(memoryShare * float64(min(m.MemoryAvailable+t.memory.bytes, m.MemoryLimit)))
}

// ownMemory returns how many bytes processes use together. Shared memory counts once if
// the kernel reports it.
func ownMemory(u process.Usage) uint64 {
	if u.Memory.Proportional > 0 {
		return u.Memory.Proportional
	}
	return u.Memory.Resident
}

// TuningState returns the tuner's results so far; nil before the first measurement.
func (t *tuner) TuningState() *apps.TuningState {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.decision.Phase == "" {
		return nil
	}
	out := &apps.TuningState{
		Settings: t.decision.Settings, Phase: t.decision.Phase, Note: t.decision.Note, Limits: t.decision.Limits, Kinds: t.controller.Kinds(),
		Undone:    t.decision.Undone,
		CoreShare: t.pool.Settings().CoreShare,
		Delayed:   t.delayed, Machine: apps.NewMachine(t.lastMachine),
		Processes:  t.bounds.Least.Processes != t.bounds.Most.Processes,
		Threads:    t.bounds.Least.Threads != t.bounds.Most.Threads,
		Coroutines: t.bounds.Least.Coroutines != t.bounds.Most.Coroutines,
	}
	if t.bounds != t.free {
		out.Advice = autotune.Advise(t.decision.Settings, t.free, out.Kinds, t.sample)
	}
	return out
}

// mustSave reports, once, that the changes which are reverted for good have changed.
func (t *tuner) mustSave() (is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	is, t.unsavedUndone = t.unsavedUndone, false
	return is
}

// exportLearned returns the results that the next run of the daemon may start with.
func (t *tuner) exportLearned() autotune.Learned {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.controller.Learned()
}

// waitFor waits for d, or until ctx ends.
func waitFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
