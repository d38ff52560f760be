package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/scaler/local"
)

// minScaleInterval is the shortest time between two decisions on the number of instances.
const minScaleInterval = time.Second

// supervisor is a daemon whose instances do the work. It runs the embedded servers, reads the
// backlogs and scales the instances.
type supervisor struct{ *Daemon }

// runInstances runs instances until ctx ends, and drains them.
func (d *supervisor) runInstances(ctx context.Context) (err error) {
	if d.program == nil {
		return &StartError{errors.New("scale.instances has several instances, but the program cannot start them: use `drover run`, cli.Main, or the option WithInstances")}
	}
	if _, _, _, ok := d.cfg.Source(); !ok {
		return &StartError{instances.ErrNoFile}
	}
	lock, err := instances.AcquireLeaderLock(ctx, d.cfg.DataDir, d.log)
	if err != nil {
		return &StartError{err}
	}
	if lock == nil {
		return nil // stopped while it waited
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	stopAdmin, err := d.serveAdmin()
	if err != nil {
		return &StartError{err}
	}
	defer stopAdmin()
	first := newResources(d.Daemon, d.cfg, nil)
	d.setOpen(first)
	defer func() { err = errors.Join(err, d.currentResources().closeExcept(nil)) }()
	if err := first.openSources(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return &StartError{err}
	}

	fleet := instances.NewFleet(first.sources, d.log)
	var stopping, cutShort atomic.Bool
	provisioner := local.New(local.Config{
		Command: *d.program,
		Hello: func(id int) (json.RawMessage, error) {
			fleet.MarkSent(id, false)
			return instances.NewGreeting(d.currentConfig(), id)
		},
		Reported: fleet.AddReport,
		Gone: func(id int, how error) {
			fleet.InstanceEnded(id)
			var exit *exec.ExitError
			if stopping.Load() && errors.As(how, &exit) {
				cutShort.Store(true)
			}
		},
		StartLimit: apps.StartLimit(d.cfg) + cutShortGrace,
		DrainLimit: d.cfg.Drain.D() + 2*cutShortGrace,
		Log:        d.log,
	})
	fleet.SetProvisioner(provisioner)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	ended := make(chan struct{})
	background.Go(func() {
		defer close(ended)
		if err := provisioner.Run(running); err != nil {
			d.log.Error("the instances have ended", "error", err)
		}
	})

	// At least one is started, to find out whether the code loads.
	wanted := max(d.cfg.Scale.Instances.Min, 1)
	if err := provisioner.Set(ctx, wanted); err != nil {
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
	d.log.Info("running", "functions", len(first.sources), "scale", d.cfg.Scale.String())
	d.onReady()

	d.phase.set(api.PhaseRunning)
	d.scaleInstances(ctx, &instances.Scaler{Fleet: fleet, Config: d.currentConfig, Decisions: &d.decisions, Log: d.log, Wanted: wanted})
	stopping.Store(true)
	d.phase.set(api.PhaseStopping)
	d.log.Info("stopping: the instances drain", "in_flight", d.InFlight(), "at_most", d.cfg.Drain.String())
	stop()
	select {
	case <-ended:
	case <-d.forceStop:
		d.log.Warn("second signal; cancelling messages in flight", "in_flight", d.InFlight())
		provisioner.ForceStop()
		<-ended
	}
	if cutShort.Load() {
		return ErrCutShort
	}
	return nil
}

// scaleInstances sets the number of instances, and reloads them, until ctx ends.
func (d *supervisor) scaleInstances(ctx context.Context, s *instances.Scaler) {
	interval := d.currentConfig().Scale.Interval.D()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		s.ScaleOnce(ctx)
		sendPauses(ctx, d.Daemon, s.Fleet)
		d.sendReloads(ctx)
		pause := time.NewTimer(minScaleInterval)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		select {
		case <-tick.C:
		case <-s.Fleet.SlotsFull(): // more instances may be needed at once
		case r := <-d.reloads:
			d.reloadInstances(ctx, r)
			if is := d.currentConfig().Scale.Interval.D(); is != interval {
				interval = is
				tick.Reset(interval)
			}
		case <-ctx.Done():
			return
		}
	}
}
