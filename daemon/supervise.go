package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/local"
)

// This file is a daemon that lets others do the work: it keeps the embedded
// server, asks for backlogs, and has as many instances as the policy wants.

const (
	// leadEvery is the time between two attempts to become the one that scales.
	leadEvery = time.Second
	// soonest is the least time between two decisions on instances.
	soonest = time.Second
)

// supervise runs instances until ctx ends, and drains them.
func (d *Daemon) supervise(ctx context.Context) (err error) {
	if d.program == nil {
		return &StartError{errors.New("scale.instances has several instances, but the program cannot start them: use `drover run`, daemon.Main, or the option WithInstances")}
	}
	if _, _, _, ok := d.cfg.Source(); !ok {
		return &StartError{errNoFile}
	}
	lock, err := d.lead(ctx)
	if err != nil || lock == nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	stopAdmin, err := d.serveAdmin()
	if err != nil {
		return &StartError{err}
	}
	defer stopAdmin()
	parts := newParts(d, d.cfg, nil)
	d.hold(parts)
	defer func() { err = errors.Join(err, d.current().close(nil)) }()
	if err := parts.openSources(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return &StartError{err}
	}

	fleet := newFleet(parts.sources, d.log)
	var stopping, cutShort atomic.Bool
	provisioner := local.New(local.Config{
		Command: *d.program,
		Hello: func(id int) (json.RawMessage, error) {
			fleet.tell(id, false)
			return Greeting(d.config(), id)
		},
		Reported: fleet.reported,
		Gone: func(id int, how error) {
			fleet.ended(id)
			var exit *exec.ExitError
			if stopping.Load() && errors.As(how, &exit) {
				cutShort.Store(true)
			}
		},
		StartLimit: apps.StartLimit(d.cfg) + cutShortGrace,
		DrainLimit: d.cfg.Drain.D() + 2*cutShortGrace,
		Log:        d.log,
	})
	fleet.provisioner = provisioner
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var instances sync.WaitGroup
	defer instances.Wait()
	defer stop()
	ended := make(chan struct{})
	instances.Go(func() {
		defer close(ended)
		if err := provisioner.Run(running); err != nil {
			d.log.Error("the instances have ended", "error", err)
		}
	})

	// One shows whether the code loads, also where none may do.
	first := max(d.cfg.Scale.Instances.Min, 1)
	if err := provisioner.Set(ctx, first); err != nil {
		return err
	}
	if err := provisioner.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return &StartError{err}
	}
	d.mu.Lock()
	d.fleet = fleet
	d.mu.Unlock()
	d.log.Info("running", "functions", len(parts.sources), "scale", d.cfg.Scale.String())
	d.onReady()

	d.enter(phaseRunning)
	(&instanceScaler{fleet: fleet, meters: make(map[string]*scaler.Meter), wanted: first, daemon: d}).run(ctx)
	stopping.Store(true)
	d.enter(phaseStopping)
	d.log.Info("stopping: the instances drain", "in_flight", d.InFlight(), "at_most", d.cfg.Drain.String())
	stop()
	select {
	case <-ended:
	case <-d.hurry:
		d.log.Warn("second signal; cancelling messages in flight", "in_flight", d.InFlight())
		provisioner.Hurry()
		<-ended
	}
	if cutShort.Load() {
		return ErrCutShort
	}
	return nil
}

// lead waits until no other daemon scales over this data directory. It returns
// nil when ctx ended first.
func (d *Daemon) lead(ctx context.Context) (*flock.Flock, error) {
	if err := os.MkdirAll(d.cfg.DataDir, dataDirMode); err != nil {
		return nil, &StartError{fmt.Errorf("making data_dir: %w", err)}
	}
	lock := flock.New(filepath.Join(d.cfg.DataDir, "scaler.lock"))
	leads, err := lock.TryLock()
	if err == nil && !leads {
		d.log.Warn("another daemon uses this data directory for scaling; standing by until it exits", "data_dir", d.cfg.DataDir)
		leads, err = lock.TryLockContext(ctx, leadEvery)
	}
	switch {
	case leads:
		return lock, nil
	case ctx.Err() != nil:
		return nil, nil
	}
	return nil, &StartError{fmt.Errorf("locking %s: %w", lock.Path(), err)}
}

// instanceScaler sets the number of instances.
type instanceScaler struct {
	fleet  *fleet
	policy scaler.Policy
	scaler *scaler.Scaler
	meters map[string]*scaler.Meter // by function
	wanted int
	daemon *Daemon
}

func (s *instanceScaler) run(ctx context.Context) {
	interval := s.daemon.config().Scale.Interval.D()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		s.look(ctx)
		s.daemon.spreadPauses(ctx)
		s.daemon.spreadReload(ctx)
		pause := time.NewTimer(soonest)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		select {
		case <-tick.C:
		case <-s.fleet.full: // more may be needed, and need not wait
		case r := <-s.daemon.reloads:
			s.daemon.reloadFleet(ctx, r)
			if is := s.daemon.config().Scale.Interval.D(); is != interval {
				interval = is
				tick.Reset(interval)
			}
		case <-ctx.Done():
			return
		}
	}
}

// look measures, decides, and has it done.
func (s *instanceScaler) look(ctx context.Context) {
	log, scale := s.daemon.log, s.daemon.config().Scale
	if policy := scale.InstancePolicy(); s.scaler == nil || !reflect.DeepEqual(policy, s.policy) {
		s.policy, s.scaler = policy, scaler.New(policy)
	}
	count, err := s.fleet.provisioner.Count(ctx)
	if err != nil {
		log.Error("cannot count the instances; their number stays", "error", err)
		return
	}
	totals := s.fleet.totals()
	now := time.Now()
	in := scaler.Signals{
		At: now.Sub(telemetry.ProcessStart), Clock: now.In(scale.Location()),
		Ready: count.Ready, Starting: count.Starting, Draining: count.Draining, StartUp: count.StartUp, Failing: count.Failing,
	}
	needed, known := 0.0, true
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		c := s.fleet.counts(ctx, name, totals[name], now)
		if s.meters[name] == nil {
			s.meters[name] = new(scaler.Meter)
		}
		load, ok := s.meters[name].Look(name, in.At, c, count.Ready)
		known = known && ok
		if load.Slots > 0 {
			needed = max(needed, float64(c.Used)/load.Slots)
		}
		in.Loads = append(in.Loads, load)
	}
	if !known || ctx.Err() != nil {
		return // a first look has no rates
	}
	in.Needed = int(math.Ceil(needed))
	d := s.scaler.Decide(in)
	s.daemon.decisions.Record("instances", now, d)
	if d.Wanted == s.wanted {
		return
	}
	if err := s.fleet.provisioner.Set(ctx, d.Wanted); err != nil {
		log.Error("cannot set the number of instances", "error", err)
		return
	}
	log.Info("scaling instances", "from", s.wanted, "to", d.Wanted, "bound", d.Bound, "why", d.String())
	s.wanted = d.Wanted
}
