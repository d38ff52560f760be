package apps

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/values"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/coreshare"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/scaler/hostinfo"
)

// Pool is the worker processes of one app.
type Pool struct {
	*workers.Pool
	// Epoch is the tuning epoch of the calls that are started now; nil until settings
	// are being tried.
	Epoch atomic.Pointer[dispatch.Epoch]
	// MaxWorkers is how many workers tuning allows; 0 before it has measured.
	MaxWorkers atomic.Int64
	// Saturated reports that the functions have more messages than slots.
	Saturated atomic.Bool

	maxCores    float64 // of each worker; 0: no limit
	scaled      atomic.Bool
	interpreter interpreters.Interpreter
	confinement *sandbox.Confinement
	loopWaits   telemetry.Histogram // of the event loops of its workers
	usage       usageCache
	code        *interpreters.Code // the state of the app's files that its workers have loaded
	imports     *interpreters.Imports
	lifetime    context.Context
	endLifetime context.CancelFunc
	running     sync.WaitGroup
	tuner       atomic.Pointer[Tuner]
}

// Tuner seeks the settings of a pool. Its methods are safe for use by many goroutines.
type Tuner interface {
	// CallFailed records a failed call. It reports whether the message is released
	// without using an attempt.
	CallFailed(call dispatch.FailedCall) (release bool)
	// FunctionMoved records that a function was moved to other workers.
	FunctionMoved()
	// TuningState returns the tuner's results so far; nil before the first measurement.
	TuningState() *TuningState
}

// LifeContext ends when the pool is closed.
func (p *Pool) LifeContext() context.Context { return p.lifetime }

// StartLoop runs a loop beside the workers. Close waits for it; loop must return when LifeContext
// ends.
func (p *Pool) StartLoop(loop func()) { p.running.Go(loop) }

// ClaimScaling reports, once per pool, that the caller is the one to scale its workers.
func (p *Pool) ClaimScaling() (first bool) { return p.scaled.CompareAndSwap(false, true) }

// IsScaled reports whether the number of workers follows the load.
func (p *Pool) IsScaled() bool { return p.scaled.Load() }

// CoreShare returns how many of the cores the libraries of each of that many workers use.
func (p *Pool) CoreShare(cores float64, processes int) int {
	return coreshare.Of(cores, processes, p.maxCores)
}

// SetTuner sets the tuner, once, before StartLoop runs it.
func (p *Pool) SetTuner(t Tuner) { p.tuner.Store(&t) }

// Tuner returns the tuner; nil before there is one.
func (p *Pool) Tuner() Tuner {
	if t := p.tuner.Load(); t != nil {
		return *t
	}
	return nil
}

// TuningState returns the results of the tuner; nil before it has measured.
func (p *Pool) TuningState() *TuningState {
	if t := p.Tuner(); t != nil {
		return t.TuningState()
	}
	return nil
}

// CallFailed records a call that failed while the tuner tries settings. It reports whether
// the message is released without using an attempt. It must not be called before SetTuner.
func (p *Pool) CallFailed(call dispatch.FailedCall) (release bool) {
	return p.Tuner().CallFailed(call)
}

// CodeFingerprint identifies the code that the workers have loaded.
func (p *Pool) CodeFingerprint() string { return p.code.Fingerprint() }

// Close stops the worker processes and waits until they have ended.
func (p *Pool) Close() {
	p.endLifetime()
	p.running.Wait()
}

// startPool starts the workers of an app. It does not wait until they are ready.
func (s *Set) startPool(ctx context.Context, app string, functions []workers.Function) (*Pool, error) {
	o, settings := s.options, s.options.Config.Apps[app]
	interpreter, err := RuntimeOf(settings.Language).Find(ctx, settings, o.Env)
	if err != nil {
		return nil, err
	}
	p := &Pool{interpreter: interpreter, imports: interpreters.NewImports(settings.Dir), maxCores: settings.Limits.CPU}
	var command process.Command
	if p.confinement, command, err = confineWorkers(ctx, settings, o.Config.DataDir, interpreter, o.Environ(), o.Log.With("app", app)); err != nil {
		return nil, err
	}
	machine, _ := hostinfo.New().ReadMachine() // the cores are always known
	p.Pool = workers.New(workers.Config{
		App:     settings.Dir,
		Command: command,
		Settings: workers.Settings{
			Processes: initialWorkers(settings, o.Config.Scale.Workers), Threads: settings.Threads, Coroutines: settings.Coroutines,
			CoreShare: p.CoreShare(machine.Cores, settings.Processes),
		},
		Functions: functions,

		Template:     settings.Start == "template",
		StartTimeout: settings.StartTimeout.D(),
		KillGrace:    settings.KillGrace.D(),
		Recycle: workers.Recycle{
			MaxInvocations: settings.Recycle.MaxInvocations, MaxMemory: uint64(settings.Recycle.MaxMemory),
			MaxAge: settings.Recycle.MaxAge.D(), MaxIdle: settings.Recycle.MaxIdle.D(),
		},
		Spare:     spareWorker(settings.Spare),
		OnBlocked: workers.OnBlocked(settings.OnBlocked),
		Observers: workers.Observers{
			Moved: func(function string, to *handlers.Slots) {
				MoveFunction(o.Running(), p, function, to)
				if t := p.Tuner(); t != nil {
					t.FunctionMoved()
				}
			},
			Died:     dispatch.ReportWorkerDied,
			Lagged:   p.loopWaits.Add,
			Imported: p.imports.Add,
		},
		Reaper: s.SharedReaper(), Confine: p.confinement, Terminal: o.Terminal, Log: o.Log,
	})
	p.lifetime, p.endLifetime = context.WithCancel(context.WithoutCancel(ctx))
	p.running.Go(func() {
		if err := p.Run(p.lifetime); err != nil {
			o.Log.Error("a pool of workers ended", "app", app, "error", err)
		}
		if err := p.confinement.Close(); err != nil {
			o.Log.Warn("some resources of workers were not removed; the next daemon removes them", "app", app, "error", err)
		}
	})
	return p, nil
}

const (
	// spareShare is how much of the memory a spare worker may need at most, for spare: auto.
	spareShare = 0.05
	// freeShare is how much of the memory must be available, for the same.
	freeShare = 0.1
)

// spareWorker returns the configuration of an app's spare worker.
func spareWorker(setting configs.Spare) workers.Spare {
	switch setting {
	case values.SpareAuto:
		machine := hostinfo.New()
		return workers.Spare{Keep: true, Fits: func(memory uint64) bool {
			now, _ := machine.ReadMachine() // values that cannot be read are 0
			return spareFits(memory, now)
		}}
	case 1:
		return workers.Spare{Keep: true}
	}
	return workers.Spare{}
}

// spareFits reports whether memory allows a spare worker that needs so many bytes. If either is unknown, it does
// not.
func spareFits(memory uint64, m hostinfo.Machine) bool {
	limit := float64(m.MemoryLimit)
	return memory > 0 && float64(memory) <= spareShare*limit && float64(m.MemoryAvailable) >= freeShare*limit
}

// MoveFunction gives the functions of a name in a pool the slots of other workers.
func MoveFunction(running []*Function, p *Pool, name string, to *handlers.Slots) {
	for _, f := range running {
		if f.Pool == p && f.Name == name {
			f.moveShare(to)
		}
	}
}

// initialWorkers is how many workers an app starts with. One is enough to find out whether
// its code loads.
func initialWorkers(app configs.App, bounds configs.Workers) int {
	if app.Scaled {
		return min(max(bounds.Min, 1), app.Processes)
	}
	return app.Processes
}
