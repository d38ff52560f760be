package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// reloadInstances reloads the configuration in all instances. The first one shows whether
// everything opens: if it refuses, nothing has changed.
func (d *supervisor) reloadInstances(ctx context.Context, r reloadRequest) {
	now := d.currentResources()
	next := newResources(d.Daemon, r.cfg, now)
	err := checkReloadable(d.Daemon, now, r.cfg)
	if err == nil {
		_, err = checkResources(ctx, r.cfg, d.funcs, d.env, d.environ())
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
	if d.level != nil {
		d.level.Set(telemetry.ParseLevel(r.cfg.Log.Level))
	}
	d.setOpen(next)
	fleet.UseSources(next.sources)
	d.sendReloads(ctx)
	if err := now.closeExcept(next); err != nil {
		d.log.Warn("closing replaced resources", "error", err)
	}
	d.log.Info("reloaded", "added", changes.Added, "changed", changes.Changed, "removed", changes.Removed, "kept", len(changes.Kept))
	r.result <- reloadResult{changes: changes}
}

// sendReloads sends the configuration to the instances that do not have it.
func (d *supervisor) sendReloads(ctx context.Context) {
	fleet := d.currentFleet()
	for _, id := range fleet.OutdatedIDs(false) {
		if _, err := d.reloadInstance(ctx, id, d.currentConfig()); err != nil {
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
