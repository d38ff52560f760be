package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/bodymemory"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/triggers"
)

// ErrCutShort is returned if messages were in flight when a stop's drain deadline passed, or
// when the stop was forced. They were released without using an attempt, or will be
// redelivered when their leases expire; none is lost.
var ErrCutShort = errors.New("stopped before everything in flight was finished")

// cutShortGrace is how long handlers may take to return after their context ended. It is longer
// than a pool needs to kill a worker (5 s).
const cutShortGrace = 10 * time.Second

// Run runs a daemon with a configuration until ctx ends; see New and Daemon.Run.
func Run(ctx context.Context, cfg *configs.Config, opts ...Option) error {
	return New(cfg, opts...).Run(ctx)
}

// Run connects, loads, receives and handles until ctx ends. Then it drains for at most the
// configured time, and returns. The error is a *StartError if it could not start, ErrCutShort if
// the drain time was too short, joined *handlers.LoadError if all functions were disabled, and
// otherwise nil.
//
// A stop ends receiving first, and cancels the calls in flight at the drain deadline. The pools
// stop after the calls. The triggers close last, since messages are settled through them.
func (d *Daemon) Run(ctx context.Context) (err error) {
	defer close(d.ended)
	if err := completeConfig(d); err != nil {
		return &StartError{err}
	}
	if err := childproc.CheckLimits(apps.NeedsProcesses(d.cfg)); err != nil {
		return &StartError{err}
	}
	defer func() { err = explainDataDir(err, d.cfg.DataDir) }()
	if d.given.Parent == "" {
		logFunctionApp(d.log, d.cfg)
	}
	if d.cfg.Scale.Instances.Scaled() {
		return (&supervisor{Daemon: d}).runInstances(ctx)
	}
	stopAdmin, err := d.serveAdmin()
	if err != nil {
		return &StartError{err}
	}
	defer stopAdmin()
	traces, err := openTraces(ctx, d.cfg.Traces, d.log)
	if err != nil {
		return &StartError{err}
	}
	d.mu.Lock()
	d.traces = traces
	d.mu.Unlock()
	defer traces.StopExport()
	d.mu.Lock()
	d.budget = triggers.NewBudget(bodymemory.DaemonLimit(d.cfg))
	d.mu.Unlock()
	if d.given.WholeProcess {
		defer startBackground(ctx, func(ctx context.Context) { bodymemory.TuneGC(ctx, d.budget) })()
	}
	d.loops = &autoscale.Loops{
		Running: d.runningFunctions, Config: d.Config, Backlogs: &d.backlogs, Decisions: &d.decisions,
		Store: autoscale.OpenStore(d.cfg.DataDir, d.log), Log: d.log,
	}
	first := newResources(d, d.cfg, nil)
	d.setOpen(first)
	defer func() { err = errors.Join(err, d.currentResources().closeExcept(nil)) }()
	if err := first.openAll(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return &StartError{err}
	}
	return d.runFunctions(ctx, first)
}

// Check returns the errors of a configuration on this machine and in this program, and remarks as
// notes. It opens no connection and starts none of the user's code. Of the options it uses those of
// functions and WithEnv.
func Check(ctx context.Context, cfg *configs.Config, opts ...Option) (notes []string, err error) {
	d := New(cfg, opts...)
	if err := completeConfig(d); err != nil {
		return nil, err
	}
	return checkResources(ctx, d.cfg, &d.given)
}

// completeConfig adds the program's functions to the configuration, and completes it.
func completeConfig(d *Daemon) error {
	if err := d.given.CompleteConfig(d.cfg); err != nil {
		return err
	}
	return d.given.CheckTriggers(d.cfg)
}

// StartError reports that a daemon could not start, because of Err.
type StartError struct{ Err error }

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// runFunctions runs the functions until ctx ends, and drains them.
func (d *Daemon) runFunctions(ctx context.Context, p *resources) error {
	c := newRunningSet(ctx, d)
	defer c.endContexts()
	defer startBackground(ctx, d.standstill.Run)()
	d.setRunning(p)
	d.startLoops(p)
	for _, f := range p.sortedFunctions() {
		c.startFunction(f)
	}
	d.phase.set(api.PhaseRunning)
	d.log.Info("running", "functions", len(p.functions))
	d.given.OnReady()
	for {
		select {
		case <-c.ended:
			if err, all := c.allEnded(); all {
				return err
			}
		case r := <-d.reloads:
			p = d.applyReload(ctx, c, p, r)
		case <-ctx.Done():
			d.phase.set(api.PhaseStopping)
			return c.drainAll()
		}
	}
}

// startLoops starts the loops over the pools that are new.
func (d *Daemon) startLoops(p *resources) {
	d.loops.ScaleWorkers(p.cfg, p.apps.AllPools())
	d.loops.TunePools(p.cfg, p.apps.AllPools())
}

// startBackground runs a function until stop is called, which waits for its end.
func startBackground(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// explainDataDir adds the data directory to a StartError if it cannot be written. Volumes of
// another user, and read-only ones, are common in containers.
func explainDataDir(err error, dir string) error {
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if checkWritable(dir) == nil {
		return err
	}
	return &StartError{fmt.Errorf("%w; user %d cannot write to data_dir, %s: change its permissions, or name another directory", err, os.Getuid(), dir)}
}

// checkWritable returns why nothing can be written to a directory; nil if it can.
func checkWritable(dir string) error {
	file, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return err
	}
	_, err = file.Write([]byte("x"))
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}
