package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers"
)

// This file reloads the configuration of a running daemon. Everything new is opened first; if
// anything does not open, it is closed again, and nothing has changed. Then each function
// that changed is drained and replaced. The others keep running.

type reloadRequest struct {
	cfg    *configs.Config
	result chan<- reloadResult
}

type reloadResult struct {
	changes api.Changes
	err     error
}

// errNotRunning is the error of a reload before the daemon runs or after it has ended.
var errNotRunning = errors.New("the daemon is not running: it is starting or stopping")

// Reload replaces the configuration, and returns when everything that changed has been
// replaced. If it returns an error, nothing has changed. It may be called from any goroutine;
// one reload waits for another.
func (d *Daemon) Reload(ctx context.Context, cfg *configs.Config) (api.Changes, error) {
	if err := d.given.CompleteConfig(cfg); err != nil {
		return api.Changes{}, d.recordReload(err)
	}
	if d.phase.get() != api.PhaseRunning {
		return api.Changes{}, errNotRunning
	}
	answer := make(chan reloadResult, 1)
	select {
	case d.reloads <- reloadRequest{cfg, answer}:
	case <-d.ended:
		return api.Changes{}, errNotRunning
	case <-ctx.Done():
		return api.Changes{}, ctx.Err()
	}
	select {
	case a := <-answer:
		return a.changes, d.recordReload(a.err)
	case <-d.ended:
		return api.Changes{}, errNotRunning
	}
}

// ReloadFile reads the configuration's file again, and reloads it.
func (d *Daemon) ReloadFile(ctx context.Context) (api.Changes, error) {
	return d.reloadText(ctx, nil)
}

// reloadText reloads the configuration from a text, or from the file if the text is empty.
func (d *Daemon) reloadText(ctx context.Context, text []byte) (api.Changes, error) {
	cfg, err := d.readConfig(ctx, text)
	if err != nil {
		return api.Changes{}, d.recordReload(err)
	}
	changes, err := d.Reload(ctx, cfg)
	return changes, err
}

// maxReload bounds the body of a request, in bytes. Only an instance receives one: its
// configuration, in JSON.
const maxReload = 4 << 20

func reloadRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "reload", Method: http.MethodPost, Path: api.ReloadPath, Help: "Reload the configuration, entirely or not at all.",
		Response: api.Changes{}, ErrorStatuses: []int{http.StatusBadRequest, http.StatusUnprocessableEntity}, Handler: func(w http.ResponseWriter, r *http.Request) { handleReload(d, w, r) },
	}}
}

func handleReload(d *Daemon, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReload))
	if err != nil {
		admin.WriteError(w, http.StatusBadRequest, "%v", err)
		return
	}
	changes, err := d.reloadText(r.Context(), body)
	if err != nil {
		text := "reload refused; nothing has changed: " + err.Error()
		if detail := loadErrorDetail(err); detail != "" {
			text += "\n" + strings.TrimSpace(detail)
		}
		var code *handlers.LoadError
		var refused *admin.LoadRefusedError // by an instance
		admin.WriteJSON(w, http.StatusUnprocessableEntity, api.Problem{Error: text, LoadError: errors.As(err, &code) || errors.As(err, &refused)})
		return
	}
	admin.WriteJSON(w, http.StatusOK, changes)
}

// readConfig reads the configuration's file again or, in one of several instances, the text that
// the parent sent.
func (d *Daemon) readConfig(ctx context.Context, text []byte) (*configs.Config, error) {
	switch {
	case d.given.Parent != "":
		return parseGreeting(text, d.given.Env)
	case len(text) > 0:
		return nil, errors.New("a reload has no body: the daemon reads its file again")
	case d.cfg.File == "":
		return nil, errors.New("the configuration was built by a program, not read from a file; use Daemon.Reload")
	}
	var cfg *configs.Config
	var err error
	if d.cfg.FunctionApp != nil {
		cfg, err = readFunctionApp(ctx, d)
	} else {
		cfg, err = configs.LoadContext(ctx, d.cfg.File, d.given.Env)
	}
	if err == nil {
		err = cfg.CheckPaths()
	}
	return cfg, err
}

// loadErrorDetail returns the traceback of a load error in err; empty without one.
func loadErrorDetail(err error) string {
	var m *handlers.LoadError
	if errors.As(err, &m) {
		return m.Detail
	}
	return ""
}

// recordReload records the result of a reload, and logs the reason if it was refused.
func (d *Daemon) recordReload(err error) error {
	var loadError *handlers.LoadError
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reloaded.At = time.Now()
	d.reloaded.Refused, d.reloaded.LoadError = "", false
	if err == nil {
		d.reloaded.Done++
		return nil
	}
	d.reloaded.Failed++
	d.reloaded.Refused, d.reloaded.LoadError = err.Error(), errors.As(err, &loadError)
	d.log.Error("reload refused; nothing has changed", "error", err, "detail", loadErrorDetail(err))
	return err
}

// applyReload replaces what differs in another configuration, and returns the resources that are
// open afterwards.
func (d *Daemon) applyReload(ctx context.Context, c *runningSet, now *resources, r reloadRequest) *resources {
	next := newResources(d, r.cfg, now)
	err := checkReloadable(d, now, r.cfg)
	if err == nil {
		err = next.openAll(ctx)
	}
	if err != nil {
		r.result <- reloadResult{err: errors.Join(err, next.closeExcept(now))}
		return now
	}
	next.dropOld()
	changes, ending, removed := compareResources(now, next)
	d.setRunning(next, removed...)
	for _, name := range changes.Added {
		c.startFunction(next.functions[name])
	}
	d.log.Info("reloading", "added", changes.Added, "changed", changes.Changed, "removed", changes.Removed, "kept", len(changes.Kept))
	c.stopFunctions(ending, now.cfg.Drain.D(), func(f *apps.Function) {
		if err := f.Close(); err != nil {
			f.Log.Warn("closing replaced resources", "error", err)
		}
		if successor := next.functions[f.Name]; successor != nil {
			c.startFunction(successor)
		}
	})
	d.startLoops(next)
	closeOld := func() {
		if err := now.closeExcept(next); err != nil {
			d.log.Warn("closing replaced resources", "error", err)
		}
	}
	if ctx.Err() != nil { // functions still drain
		c.atEnd = append(c.atEnd, closeOld)
	} else {
		d.setRunning(next)
		closeOld()
	}
	logFunctionApp(d.log, r.cfg)
	d.log.Info("reloaded", "functions", len(next.functions))
	r.result <- reloadResult{changes: changes}
	return next
}

// compareResources returns what changes, the functions that end, and those of them that are removed.
// A function that replaces another takes over its counts and its pause.
func compareResources(now, next *resources) (changes api.Changes, ending, removed []*apps.Function) {
	changes = api.Changes{Added: []string{}, Changed: []string{}, Removed: []string{}, Kept: []string{}}
	for _, f := range next.sortedFunctions() {
		switch was := now.functions[f.Name]; was {
		case nil:
			changes.Added = append(changes.Added, f.Name)
		case f:
			changes.Kept = append(changes.Kept, f.Name)
		default:
			changes.Changed = append(changes.Changed, f.Name)
			ending = append(ending, was)
			f.Stats = was.Stats
			if paused, until := was.PauseState(); paused {
				f.SetPaused(true, until)
			}
		}
	}
	for _, f := range now.sortedFunctions() {
		if next.functions[f.Name] == nil {
			changes.Removed = append(changes.Removed, f.Name)
			ending, removed = append(ending, f), append(removed, f)
		}
	}
	return changes, ending, removed
}

// checkReloadable returns an error if a configuration changes something that a running daemon
// cannot change.
func checkReloadable(d *Daemon, now *resources, cfg *configs.Config) error {
	var fixed []string
	for _, key := range []struct {
		name    string
		was, is any
	}{
		{"data_dir", d.cfg.DataDir, cfg.DataDir},
		{"log.format", d.cfg.Log.Format, cfg.Log.Format},
		{"admin", d.cfg.Admin, cfg.Admin},
		{"probes", d.cfg.Probes, cfg.Probes},
		{"traces", d.cfg.Traces, cfg.Traces},
		{"scale.instances (one or several)", d.cfg.Scale.Instances.Scaled(), cfg.Scale.Instances.Scaled()},
	} {
		if !reflect.DeepEqual(key.was, key.is) {
			fixed = append(fixed, key.name)
		}
	}
	for _, name := range d.stores.Names() {
		is, there := cfg.Connections[name]
		if there && !reflect.DeepEqual(now.cfg.Connections[name], is) {
			fixed = append(fixed, "connections."+name+" (the embedded server)")
		}
	}
	if len(fixed) > 0 {
		return fmt.Errorf("changes of %s need a restart", strings.Join(fixed, ", "))
	}
	for name := range d.given.Triggers {
		if _, stays := cfg.Functions[name]; !stays && now.functions[name] != nil {
			return fmt.Errorf("function %s: %w", name, errOwnParts)
		}
	}
	return nil
}

// errOwnParts is the error of a change to a function with a trigger or handler from the program: these
// cannot be reopened.
var errOwnParts = errors.New("it has a trigger or a handler from the program, and cannot be changed or removed by a reload")
