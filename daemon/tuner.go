package daemon

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/scaler/autotune"
	"github.com/drover-run/drover/scaler/hostinfo"
)

// This file measures a pool, and has what is found out come in force. What is decided
// is in scaler/autotune.

const (
	// tuneEvery is the time between two measurements while calls end, and tuneIdle
	// otherwise. After restAfter without calls it is tuneRest, unless a call begins:
	// each measurement reads every function, and a thousand of them took half a percent
	// of a core each second.
	tuneEvery = 250 * time.Millisecond
	tuneIdle  = time.Second
	restAfter = 30 * time.Second
	tuneRest  = 10 * time.Second
	// memoryEvery is how often the memory of processes is read, which takes longer
	// than all the rest, and memoryHeld how often while settings stay.
	memoryEvery = 500 * time.Millisecond
	memoryHeld  = 5 * time.Second
	// mostThreads and mostCoroutines are what auto goes up to, in each process.
	mostThreads    = 512
	mostCoroutines = 16384
	// unmeasuredCoroutines is the least of a worker that does not measure its calls.
	unmeasuredCoroutines = 100
	// memoryShare is the part of the memory that a pool may have.
	memoryShare = 0.8
)

// tuner runs the controller of one pool.
type tuner struct {
	pool  *pool
	loads func(now time.Time) map[string]load // by function; what is absent does not count
	apply func(autotune.Decision)
	move  func(function string, to *handlers.Slots)
	log   *slog.Logger

	machine *hostinfo.Reader
	delays  *hostinfo.Delays
	last    reading
	memory  uint64
	weighed time.Time

	mu         sync.Mutex
	bounds     autotune.Bounds
	free       autotune.Bounds // if nothing were given
	controller *autotune.Controller
	decision   autotune.Decision
	level      autotune.Level // that is in force
	lasting    bool           // what is undone for good has changed, and is not written down
	sample     autotune.Sample
	seen       hostinfo.Machine
	delayed    time.Duration // for how long the workers' threads waited for a core
}

// load is what the pool does not know of a function.
type load struct {
	saturated bool
	inFlight  float64 // on average since the look before
	limit     int     // in flight; 0: none
	timeout   time.Duration
}

// reading is what was read at one look.
type reading struct {
	at       time.Time
	machine  hostinfo.Machine
	pool     time.Duration // the processor time of the workers
	daemon   time.Duration
	measures map[string]worker.Measures
}

// tuningBounds are those of an app's settings, as they are and if nobody had given a
// number. Tunable says that threads can change while workers run.
func tuningBounds(app configs.App, tunable bool, cores int) (given, free autotune.Bounds) {
	free.Least = autotune.Settings{Processes: 1, Threads: 1, Coroutines: 1}
	free.Most = autotune.Settings{Processes: max(2*cores, 4), Threads: mostThreads, Coroutines: mostCoroutines}
	if !tunable {
		free.Least.Threads, free.Most.Threads = app.Threads, app.Threads
		// Nor does such a worker tell what a call uses: it begins with what suits those
		// that wait.
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

// newTuner makes one for a pool that is ready. Learned is from an earlier life; nil is
// nothing.
func newTuner(pool *pool, given, free autotune.Bounds, learned *autotune.Learned, log *slog.Logger) *tuner {
	return &tuner{
		pool: pool, log: log, machine: hostinfo.New(), delays: hostinfo.NewDelays(),
		bounds: given, free: free, controller: autotune.New(given, learned),
	}
}

// run looks, until ctx ends. What is undone for good is given to keep at once.
func (t *tuner) run(ctx context.Context, keep func(autotune.Learned)) {
	var active time.Time
	for ctx.Err() == nil {
		at := time.Now()
		busy := t.look(at)
		if t.isLasting() {
			keep(t.learned())
		}
		if busy {
			active = at
			wait(ctx, tuneEvery)
			continue
		}
		wait(ctx, tuneIdle)
		for at.Sub(active) > restAfter && time.Since(at) < tuneRest && t.pool.Stats().InFlight == 0 && ctx.Err() == nil {
			wait(ctx, tuneIdle)
		}
	}
}

// look measures, decides, and has it done. It reports whether calls have ended, or are
// in flight.
func (t *tuner) look(at time.Time) (busy bool) {
	s, busy := t.measure(at)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed() // others scale the pool, too
	e, places := t.pool.epoch.Load(), make(map[string]int)
	for place, name := range t.pool.Functions() {
		places[name] = place
	}
	for i := range s.Functions {
		s.Functions[i].Passed = e.PassedAt(places[s.Functions[i].Name])
	}
	t.seen = t.last.machine
	t.sample = s
	t.decide(t.controller.Look(s), nil)
	return busy
}

// measure makes a sample of what happened since the look before.
func (t *tuner) measure(at time.Time) (s autotune.Sample, busy bool) {
	stats, settings := t.pool.Stats(), t.pool.Settings()
	now := reading{at: at, pool: t.pool.CPU(), daemon: ownCPU(), measures: make(map[string]worker.Measures)}
	now.machine, _ = t.machine.Look() // what cannot be read is unknown
	t.mu.Lock()
	every := memoryEvery
	if p := t.decision.Phase; p == autotune.PhaseHold || p == autotune.PhaseIdle || p == autotune.PhaseExplicit {
		every = memoryHeld
	}
	t.mu.Unlock()
	if at.Sub(t.weighed) >= every {
		t.weighed, t.memory = at, ownMemory(t.pool.Usage())
	}
	last := t.last
	elapsed := at.Sub(last.at)
	s = autotune.Sample{
		At: at.Sub(processStart), Ready: stats.Ready, Cores: now.machine.Cores, RunQueue: math.NaN(),
		Settings: autotune.Settings{Processes: settings.Processes, Threads: settings.Threads, Coroutines: settings.Coroutines},
		Memory:   t.memory, MemoryLimit: t.memoryLimit(now.machine),
	}
	first := last.at.IsZero() || elapsed <= 0
	if !first {
		s.CPU = (now.pool - last.pool).Seconds() / elapsed.Seconds()
		s.Daemon = (now.daemon - last.daemon).Seconds() / elapsed.Seconds()
		if others := hostinfo.Others(last.machine, now.machine, now.pool-last.pool+now.daemon-last.daemon, elapsed); !math.IsNaN(others) {
			s.Others = others
		}
	}
	if waited, known := t.delays.Since(stats.PIDs); known && !first {
		s.RunQueue = waited.Seconds() / elapsed.Seconds()
		t.mu.Lock()
		t.delayed += waited
		t.mu.Unlock()
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
			Name: m.Function, Async: m.Async, Done: (m.Calls - m.Failed) - (was.Calls - was.Failed), Failed: m.Failed - was.Failed, // what fails at once is no throughput
			Saturated: l.saturated, InFlight: l.inFlight, Limit: l.limit, Timeout: l.timeout,
			Measured: m.Measured - was.Measured, Wall: m.MeasuredWall - was.MeasuredWall, CPU: m.CPU - was.CPU, Held: m.Held - was.Held,
			AllWall: m.Wall - was.Wall, Looks: m.Looks - was.Looks, HeldGIL: m.HeldGIL - was.HeldGIL,
		}
		busy = busy || m.Calls > was.Calls || f.InFlight > 0
		s.Functions = append(s.Functions, f)
	}
	t.last = now
	return s, busy
}

// memoryLimit is what the pool may have: its share of what is free, and what it has.
func (t *tuner) memoryLimit(m hostinfo.Machine) uint64 {
	if m.MemoryLimit == 0 {
		return 0
	}
	return uint64(memoryShare * float64(min(m.MemoryAvailable+t.memory, m.MemoryLimit)))
}

// ownMemory is what processes have together, where what they share counts once if the
// kernel tells.
func ownMemory(u process.Usage) uint64 {
	if u.Memory.Proportional > 0 {
		return u.Memory.Proportional
	}
	return u.Memory.Resident
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tuned is what a tuner has found out.
type tuned struct {
	Settings   autotune.Settings `json:"settings"`
	Processes  bool              `json:"auto_processes"`
	Threads    bool              `json:"auto_threads"`
	Coroutines bool              `json:"auto_coroutines"`
	Phase      string            `json:"phase"`
	Note       string            `json:"note"`
	// Limits are those of functions, in flight in each process.
	Limits map[string]int           `json:"limits,omitempty"`
	Kinds  map[string]autotune.Kind `json:"kinds"`
	// Undone are changes of settings that are undone since calls failed after them.
	Undone []autotune.Undone `json:"undone,omitempty"`
	// Delayed is for how long the workers' threads were ready and waited for a core.
	Delayed time.Duration `json:"delayed"`
	Machine machineStatus `json:"machine"`
	// Advice is what auto would do where numbers are given; empty: the same.
	Advice string `json:"advice,omitempty"`
}

// machineStatus is what the machine gives; what is unknown is missing.
type machineStatus struct {
	Cores           float64  `json:"cores"`
	MemoryLimit     uint64   `json:"memory_limit,omitempty"`     // bytes, of all in the cgroup
	MemoryAvailable uint64   `json:"memory_available,omitempty"` // bytes
	CPUPressure     *float64 `json:"cpu_pressure,omitempty"`     // 0 to 1
	MemoryPressure  *float64 `json:"memory_pressure,omitempty"`
}

func newMachineStatus(m hostinfo.Machine) machineStatus {
	part := func(percent float64) *float64 {
		if math.IsNaN(percent) {
			return nil
		}
		percent /= 100
		return &percent
	}
	return machineStatus{m.Cores, m.MemoryLimit, m.MemoryAvailable, part(m.Pressure.CPU), part(m.Pressure.Memory)}
}

// state returns what was found out so far; nil before the first look.
func (t *tuner) state() *tuned {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.decision.Phase == "" {
		return nil
	}
	out := &tuned{
		Settings: t.decision.Settings, Phase: t.decision.Phase, Note: t.decision.Note, Limits: t.decision.Limits, Kinds: t.controller.Kinds(),
		Undone:  t.decision.Undone,
		Delayed: t.delayed, Machine: newMachineStatus(t.seen),
		Processes:  t.bounds.Least.Processes != t.bounds.Most.Processes,
		Threads:    t.bounds.Least.Threads != t.bounds.Most.Threads,
		Coroutines: t.bounds.Least.Coroutines != t.bounds.Most.Coroutines,
	}
	if t.bounds != t.free {
		out.Advice = autotune.Advise(t.decision.Settings, t.free, out.Kinds, t.sample)
	}
	return out
}

// isLasting reports, once, that what is undone for good has changed.
func (t *tuner) isLasting() (is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	is, t.lasting = t.lasting, false
	return is
}

// learned is what it would remember.
func (t *tuner) learned() autotune.Learned {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.controller.Learned()
}
