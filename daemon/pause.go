package daemon

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/instances"
)

// SetPaused pauses a function in all instances, or resumes it; until is when it resumes by itself,
// zero for never. It reports whether a function of that name exists.
func (d *Daemon) SetPaused(ctx context.Context, name string, paused bool, until time.Time) (found bool) {
	for _, f := range d.runningFunctions() {
		if f.Name == name {
			f.SetPaused(paused, until)
			logPause(f.Log, paused, until)
			return true
		}
	}
	fleet := d.currentFleet()
	if fleet == nil || fleet.SourceOf(name) == nil {
		return false
	}
	d.mu.Lock()
	if d.paused == nil {
		d.paused = make(map[string]time.Time)
	}
	if delete(d.paused, name); paused {
		d.paused[name] = until
	}
	d.mu.Unlock()
	logPause(d.log.With("function", name), paused, until)
	sendPauses(ctx, d, fleet)
	return true
}

func logPause(log *slog.Logger, paused bool, until time.Time) {
	switch {
	case !paused:
		log.Info("function resumed")
	case until.IsZero():
		log.Info("function paused")
	default:
		log.Info("function paused", "until", until)
	}
}

// sendPauses sends pauses to the instances that do not have them.
func sendPauses(ctx context.Context, d *Daemon, fleet *instances.Fleet) {
	d.mu.Lock()
	for name, until := range d.paused {
		if !until.IsZero() && !until.After(time.Now()) {
			delete(d.paused, name)
		}
	}
	paused := maps.Clone(d.paused)
	d.mu.Unlock()
	for id, functions := range fleet.PauseMismatches(paused) {
		client := admin.NewSocketClient(instances.InstanceDir(d.cfg.DataDir, id))
		for _, name := range functions {
			until, should := paused[name]
			if err := client.PostEmpty(ctx, api.PausePath(name, should, until)); err != nil {
				d.log.Warn("cannot send a pause to an instance; will retry", "instance", id, "function", name, "error", err)
			}
		}
	}
}

func pauseRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "pauseFunction", Method: http.MethodPost, Path: api.PausePattern, Help: "Pause a function: stop receiving new messages; those in flight finish.",
		Params:   []admin.Param{admin.FunctionParam, {Name: "until", Help: "when it resumes; by default when it is resumed, or the daemon restarts", Format: "date-time"}},
		Response: api.Health{}, ErrorStatuses: []int{http.StatusBadRequest, http.StatusNotFound}, Handler: func(w http.ResponseWriter, r *http.Request) { handlePause(d, w, r) },
	}, {
		ID: "resumeFunction", Method: http.MethodPost, Path: api.ResumePattern, Help: "Resume a paused function.",
		Params: []admin.Param{admin.FunctionParam}, Response: api.Health{}, ErrorStatuses: []int{http.StatusNotFound}, Handler: func(w http.ResponseWriter, r *http.Request) { setPauseState(d, w, r, false, time.Time{}) },
	}}
}

func handlePause(d *Daemon, w http.ResponseWriter, r *http.Request) {
	var until time.Time
	if text := r.URL.Query().Get("until"); text != "" {
		var err error
		if until, err = time.Parse(time.RFC3339Nano, text); err != nil {
			admin.WriteError(w, http.StatusBadRequest, "until is not a time; write it as 2026-01-31T08:00:00Z")
			return
		}
	}
	setPauseState(d, w, r, true, until)
}

func setPauseState(d *Daemon, w http.ResponseWriter, r *http.Request, paused bool, until time.Time) {
	if name := r.PathValue("name"); !d.SetPaused(r.Context(), name, paused, until) {
		admin.WriteNotFound(w, name, slices.Sorted(maps.Keys(d.Config().Functions)))
		return
	}
	admin.WriteJSON(w, http.StatusOK, api.Health{Status: "ok"})
}
