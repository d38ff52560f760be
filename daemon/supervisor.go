package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
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
	if d.given.Instance == nil {
		return &StartError{errors.New("scale.instances has several instances, but the program cannot start them: use `drover run`, cli.Main, or the option WithInstances")}
	}
	if !instances.CanPassOn(d.cfg) {
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
		Command: *d.given.Instance,
		Hello: func(id int) (json.RawMessage, error) {
			fleet.MarkSent(id, false)
			return instances.NewGreeting(d.Config(), id)
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
	if err := provisioner.WaitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return &StartError{err}
	}
	d.mu.Lock()
	d.fleet = fleet
	d.mu.Unlock()
	d.log.Info("running", "functions", len(first.sources), "scale", d.cfg.Scale.String())
	d.given.OnReady()

	d.phase.set(api.PhaseRunning)
	d.scaleInstances(ctx, &instances.Scaler{Fleet: fleet, Config: d.Config, Decisions: &d.decisions, Log: d.log, Wanted: wanted})
	stopping.Store(true)
	d.phase.set(api.PhaseStopping)
	d.log.Info("stopping: the instances drain", "in_flight", d.InFlight(), "at_most", d.cfg.Drain.String())
	defer logStopped(d.Daemon, time.Now(), d.Status())
	stop()
	select {
	case <-ended:
	case <-d.given.ForceStop:
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
	interval := d.Config().Scale.Interval.D()
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
			if is := d.Config().Scale.Interval.D(); is != interval {
				interval = is
				tick.Reset(interval)
			}
		case <-ctx.Done():
			return
		}
	}
}

// reloadInstances reloads the configuration in all instances. The first one shows whether
// everything opens: if it refuses, nothing has changed.
func (d *supervisor) reloadInstances(ctx context.Context, r reloadRequest) {
	now := d.currentResources()
	next := newResources(d.Daemon, r.cfg, now)
	err := checkReloadable(d.Daemon, now, r.cfg)
	if err == nil {
		_, err = checkResources(ctx, r.cfg, &d.given)
	}
	if err == nil {
		err = next.openSources(ctx)
	}
	fleet := d.currentFleet()
	changes := compareSettings(now.cfg, r.cfg)
	if ids := fleet.OutdatedIDs(true); err == nil && len(ids) > 0 {
		if changes, err = d.reloadInstance(ctx, ids[0], r.cfg); err == nil {
			fleet.MarkSent(ids[0], true)
		}
	}
	if err != nil {
		r.result <- reloadResult{err: errors.Join(err, next.closeExcept(now))}
		return
	}
	next.dropOld()
	d.setOpen(next)
	fleet.UseSources(next.sources)
	d.sendReloads(ctx)
	if err := now.closeExcept(next); err != nil {
		d.log.Warn("closing replaced resources", "error", err)
	}
	logFunctionApp(d.log, r.cfg)
	d.log.Info("reloaded", "added", changes.Added, "changed", changes.Changed, "removed", changes.Removed, "kept", len(changes.Kept))
	r.result <- reloadResult{changes: changes}
}

// sendReloads sends the configuration to the instances that do not have it.
func (d *supervisor) sendReloads(ctx context.Context) {
	fleet := d.currentFleet()
	for _, id := range fleet.OutdatedIDs(false) {
		if _, err := d.reloadInstance(ctx, id, d.Config()); err != nil {
			d.log.Error("an instance did not accept the new configuration; will retry", "instance", id, "error", err)
			continue
		}
		fleet.MarkSent(id, false)
	}
}

// reloadLimit bounds a reload, which loads code and drains functions.
func reloadLimit(cfg *configs.Config) time.Duration {
	return apps.StartLimit(cfg) + cfg.Drain.D() + 2*cutShortGrace
}

func (d *supervisor) reloadInstance(ctx context.Context, id int, cfg *configs.Config) (changes api.Changes, err error) {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit(cfg))
	defer cancel()
	hello, err := Greeting(cfg, id)
	if err != nil {
		return changes, err
	}
	client := admin.NewSocketClient(instances.InstanceDir(d.cfg.DataDir, id)).WithoutTimeout() // ctx bounds it
	if err := client.PostJSON(ctx, api.ReloadPath, hello, &changes); err != nil {
		return changes, fmt.Errorf("instance %d: %w", id, err)
	}
	return changes, nil
}

// compareSettings returns the differences between two configurations.
func compareSettings(was, is *configs.Config) api.Changes {
	p := &resources{cfg: is, old: &resources{cfg: was}}
	changes := api.Changes{Added: []string{}, Changed: []string{}, Removed: []string{}, Kept: []string{}}
	for _, name := range slices.Sorted(maps.Keys(is.Functions)) {
		switch _, found := was.Functions[name]; {
		case !found:
			changes.Added = append(changes.Added, name)
		case p.sameSettings(name):
			changes.Kept = append(changes.Kept, name)
		default:
			changes.Changed = append(changes.Changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was.Functions)) {
		if _, found := is.Functions[name]; !found {
			changes.Removed = append(changes.Removed, name)
		}
	}
	return changes
}
