package daemon

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/instances"
)

// This file has a function receive nothing for a while, because somebody asks. A
// pause ends with the daemon.

// pause pauses a function, or has it go on; false where there is none.
func (d *Daemon) pause(ctx context.Context, name string, paused bool, until time.Time) bool {
	for _, f := range d.running() {
		if f.Name == name {
			f.SetPaused(paused, until)
			f.Log.Info("paused by hand", "paused", paused, "until", until)
			return true
		}
	}
	fleet := d.instances()
	if fleet == nil || fleet.Source(name) == nil {
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
	d.log.Info("paused by hand", "function", name, "paused", paused, "until", until)
	d.spreadPauses(ctx)
	return true
}

// spreadPauses tells the instances what is paused, where they do not know.
func (d *Daemon) spreadPauses(ctx context.Context) {
	d.mu.Lock()
	for name, until := range d.paused {
		if !until.IsZero() && !until.After(time.Now()) {
			delete(d.paused, name)
		}
	}
	paused := maps.Clone(d.paused)
	d.mu.Unlock()
	for id, functions := range d.instances().PauseMismatches(paused) {
		client := admin.NewSocketClient(instances.Dir(d.cfg.DataDir, id))
		for _, name := range functions {
			until, should := paused[name]
			if err := client.Post(ctx, api.PausePath(name, should, until)); err != nil {
				d.log.Warn("cannot send a pause to an instance; will retry", "instance", id, "function", name, "error", err)
			}
		}
	}
}

func pauseRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "pauseFunction", Method: http.MethodPost, Path: api.PausePattern, Help: "Pause a function: stop receiving new messages; those in flight finish.",
		Params: []admin.Param{admin.FunctionParam, {Name: "until", Help: "when it resumes; by default when it is resumed, or the daemon restarts", Format: "date-time"}},
		Answer: api.Health{}, ErrorStatuses: []int{http.StatusBadRequest, http.StatusNotFound}, Handler: d.answerPause,
	}, {
		ID: "resumeFunction", Method: http.MethodPost, Path: api.ResumePattern, Help: "Resume a paused function.",
		Params: []admin.Param{admin.FunctionParam}, Answer: api.Health{}, ErrorStatuses: []int{http.StatusNotFound}, Handler: d.answerResume,
	}}
}

func (d *Daemon) answerPause(w http.ResponseWriter, r *http.Request) {
	var until time.Time
	if text := r.URL.Query().Get("until"); text != "" {
		var err error
		if until, err = time.Parse(time.RFC3339Nano, text); err != nil {
			admin.Refuse(w, http.StatusBadRequest, "until is no time; write it as 2026-01-31T08:00:00Z")
			return
		}
	}
	d.answerPaused(w, r, true, until)
}

func (d *Daemon) answerResume(w http.ResponseWriter, r *http.Request) {
	d.answerPaused(w, r, false, time.Time{})
}

func (d *Daemon) answerPaused(w http.ResponseWriter, r *http.Request, paused bool, until time.Time) {
	if name := r.PathValue("name"); !d.pause(r.Context(), name, paused, until) {
		admin.RefuseUnknown(w, name, d.names())
		return
	}
	admin.Answer(w, http.StatusOK, api.Health{Status: "ok"})
}

// pauseCommand is `drover pause`.
type pauseCommand struct {
	Function string `arg:"" help:"Pause this function."`
	clientFlags
	Until string `help:"Resume after a duration, such as 2h, or at a time, such as 2026-01-31T08:00:00Z (default: until drover resume or the daemon stops)."`
}

func (*pauseCommand) Help() string {
	return `Pauses the function in all instances. Its messages wait at the source.

Examples:

    drover pause thumbnails --until 2h
    drover pause thumbnails --until 2026-01-31T08:00:00Z
    drover pause thumbnails          # until drover resume or the daemon stops
`
}

func (c *pauseCommand) Run(ctx context.Context, std *IO) error {
	var until time.Time
	if c.Until != "" {
		if length, err := time.ParseDuration(c.Until); err == nil {
			until = time.Now().Add(length)
		} else if until, err = time.Parse(time.RFC3339, c.Until); err != nil {
			return exit.UsageError(fmt.Sprintf("--until is %q; write it as 2h, or as 2026-01-31T08:00:00Z", c.Until))
		}
		if !until.After(time.Now()) {
			return exit.UsageError("--until is over already")
		}
	}
	return c.postTo(ctx, std, api.PausePath(c.Function, true, until))
}

// resumeCommand is `drover resume`.
type resumeCommand struct {
	Function string `arg:"" help:"Resume this function."`
	clientFlags
}

func (*resumeCommand) Help() string {
	return `Example:

    drover resume thumbnails
`
}

func (c *resumeCommand) Run(ctx context.Context, std *IO) error {
	return c.postTo(ctx, std, api.PausePath(c.Function, false, time.Time{}))
}
