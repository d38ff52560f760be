package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
)

// This file has a running daemon go on with another configuration. All that is new
// is opened beside what runs; if anything of it does not open, it is closed again,
// and nothing has changed. Only then what changed is drained, one function apart
// from the other, and replaced. What did not change goes on.

type reloadRequest struct {
	cfg    *configs.Config
	answer chan<- reloadAnswer
}

type reloadAnswer struct {
	changes api.Changes
	err     error
}

// errNotRunning says that there is nothing to reload.
var errNotRunning = errors.New("the daemon is not running: it is starting or stopping")

// Reload has the daemon go on with another configuration, and returns when what
// changed has been replaced. The error says what is wrong with it, and that nothing
// was changed. It may be called from any goroutine; one reload waits for the other.
func (d *Daemon) Reload(ctx context.Context, cfg *configs.Config) (api.Changes, error) {
	if err := cfg.Complete(d.env); err != nil {
		return api.Changes{}, d.noteReload(err)
	}
	if d.inPhase() != api.PhaseRunning {
		return api.Changes{}, errNotRunning
	}
	answer := make(chan reloadAnswer, 1)
	select {
	case d.reloads <- reloadRequest{cfg, answer}:
	case <-d.over:
		return api.Changes{}, errNotRunning
	case <-ctx.Done():
		return api.Changes{}, ctx.Err()
	}
	select {
	case a := <-answer:
		return a.changes, d.noteReload(a.err)
	case <-d.over:
		return api.Changes{}, errNotRunning
	}
}

// ReloadFile reads the configuration's file again, and reloads it.
func (d *Daemon) ReloadFile(ctx context.Context) (api.Changes, error) {
	return d.reloadInstead(ctx, nil)
}

// reloadInstead reloads what is given in place of the file, if anything is.
func (d *Daemon) reloadInstead(ctx context.Context, instead []byte) (api.Changes, error) {
	cfg, err := d.reread(instead)
	if err != nil {
		return api.Changes{}, d.noteReload(err)
	}
	changes, err := d.Reload(ctx, cfg)
	return changes, err
}

// maxReload bounds the body, in bytes. Only an instance gets one: its configuration, in JSON.
const maxReload = 4 << 20

func reloadRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "reload", Method: http.MethodPost, Path: api.ReloadPath, Help: "Reload the configuration, entirely or not at all.",
		Answer: api.Changes{}, ErrorStatuses: []int{http.StatusBadRequest, http.StatusUnprocessableEntity}, Handler: d.answerReload,
	}}
}

func (d *Daemon) answerReload(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReload))
	if err != nil {
		admin.Refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	changes, err := d.reloadInstead(r.Context(), body)
	if err != nil {
		text := "reload refused; nothing has changed: " + err.Error()
		if detail := detailOf(err); detail != "" {
			text += "\n" + strings.TrimSpace(detail)
		}
		admin.Refuse(w, http.StatusUnprocessableEntity, "%s", text)
		return
	}
	admin.Answer(w, http.StatusOK, changes)
}

// readAgain reads the file of the configuration.
func (d *Daemon) readAgain(instead []byte) (*configs.Config, error) {
	switch {
	case len(instead) > 0:
		return nil, errors.New("a reload has no body: the daemon reads its file again")
	case d.cfg.File == "":
		return nil, errors.New("the configuration was built by a program, not read from a file; use Daemon.Reload")
	}
	cfg, err := configs.Load(d.cfg.File, d.env)
	if err == nil {
		err = cfg.CheckPaths()
	}
	return cfg, err
}

// noteReload remembers how a reload ended, and logs why it was refused.
func (d *Daemon) noteReload(err error) error {
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
	d.log.Error("reload refused; nothing has changed", "error", err, "detail", detailOf(err))
	return err
}

func (d *Daemon) lastReload() status.Reload {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reloaded
}

// config is the configuration that the daemon runs now.
func (d *Daemon) config() *configs.Config {
	if p := d.current(); p != nil {
		return p.cfg
	}
	return d.cfg
}

func (d *Daemon) current() *parts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// hold makes parts those that the daemon closes in the end.
func (d *Daemon) hold(p *parts) {
	d.logs.SetApps(functionsOfApps(p.cfg))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = p
}

// use makes parts those that the daemon runs, with their functions and some more
// that end.
func (d *Daemon) use(p *parts, ending ...*apps.Function) {
	functions := append(p.inOrder(), ending...)
	d.logs.SetApps(functionsOfApps(p.cfg))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open, d.functions = p, functions
	d.appRegistry.Use(p.apps)
}

// reload has a crew go on with another configuration, and returns the parts that
// are open then.
func (d *Daemon) reload(ctx context.Context, c *crew, now *parts, r reloadRequest) *parts {
	next := newParts(d, r.cfg, now)
	err := d.reloadable(now, r.cfg)
	if err == nil {
		err = next.open(ctx)
	}
	if err != nil {
		r.answer <- reloadAnswer{err: errors.Join(err, next.close(now))}
		return now
	}
	next.forgetOld() // or all that ever was would be held
	changes, ending, removed := compare(now, next)
	d.setLevel(r.cfg.Log)
	d.use(next, removed...)
	for _, name := range changes.Added {
		c.start(next.functions[name])
	}
	d.log.Info("reloading", "added", changes.Added, "changed", changes.Changed, "removed", changes.Removed, "kept", len(changes.Kept))
	c.retire(ending, now.cfg.Drain.D(), func(f *apps.Function) {
		if err := f.Close(); err != nil {
			f.Log.Warn("closing replaced parts", "error", err)
		}
		if successor := next.functions[f.Name]; successor != nil {
			c.start(successor)
		}
	})
	d.scaleAndTune(next)
	closeOld := func() {
		if err := now.close(next); err != nil {
			d.log.Warn("closing replaced parts", "error", err)
		}
	}
	if ctx.Err() != nil { // what ends is still at it
		c.atLast = append(c.atLast, closeOld)
	} else {
		d.use(next)
		closeOld()
	}
	d.log.Info("reloaded", "functions", len(next.functions))
	r.answer <- reloadAnswer{changes: changes}
	return next
}

// compare tells what changes, the functions that end, and those of them that
// nothing follows. What follows another goes on with its counts, and is paused if
// that was.
func compare(now, next *parts) (changes api.Changes, ending, removed []*apps.Function) {
	changes = api.Changes{Added: []string{}, Changed: []string{}, Removed: []string{}, Kept: []string{}}
	for _, f := range next.inOrder() {
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
	for _, f := range now.inOrder() {
		if next.functions[f.Name] == nil {
			changes.Removed = append(changes.Removed, f.Name)
			ending, removed = append(ending, f), append(removed, f)
		}
	}
	return changes, ending, removed
}

// reloadable returns an error if a configuration differs in what a running daemon
// can't change.
func (d *Daemon) reloadable(now *parts, cfg *configs.Config) error {
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
	for name := range d.triggers {
		if _, stays := cfg.Functions[name]; !stays && now.functions[name] != nil {
			return ownTriggerStays(name)
		}
	}
	return nil
}

// ownTriggerStays is what becomes of a change to a function whose trigger the program
// gave: there is no second one to go on with, and what was closed does not open again.
func ownTriggerStays(name string) error {
	return fmt.Errorf("function %s has a trigger from the program, and cannot be changed or removed by a reload", name)
}

// setLevel changes what is logged.
func (d *Daemon) setLevel(log configs.Log) {
	if d.level != nil {
		d.level.Set(telemetry.ParseLevel(log.Level))
	}
}

// WithLogLevel gives the level of the logger, which a reload may change.
func WithLogLevel(level *slog.LevelVar) Option { return func(d *Daemon) { d.level = level } }

// What follows says of single parts whether a new configuration keeps them.

// forgetOld releases the parts that these follow.
func (p *parts) forgetOld() {
	p.old = nil
	p.apps.ForgetOld()
	p.shared.DropEarlier()
}

// keepsSettings reports whether a function is what it was, but for its app.
func (p *parts) keepsSettings(name string) bool {
	if p.old == nil {
		return false
	}
	was, found := p.old.cfg.Functions[name]
	return found && reflect.DeepEqual(was, p.cfg.Functions[name]) &&
		!slices.ContainsFunc(was.Connections(), func(c string) bool { return !reflect.DeepEqual(p.old.cfg.Connections[c], p.cfg.Connections[c]) })
}

func (p *parts) keepsSource(name string) bool {
	return p.keepsSettings(name) && p.old.sources[name] != nil
}

// keepsFunction is to be asked when the pools are there.
func (p *parts) keepsFunction(name string) bool {
	if !p.keepsSettings(name) || p.old.functions[name] == nil || p.old.functions[name].LoadError() != nil {
		return false
	}
	c, found := p.cfg.Functions[name].Handler.Code()
	return !found || p.apps.Pool(c.App) == p.old.apps.Pool(c.App)
}

// functionsOfApps returns the names of the functions of each app, by the name of the app and by
// its directory: log lines have one of them.
func functionsOfApps(cfg *configs.Config) map[string][]string {
	out := make(map[string][]string)
	for name, f := range cfg.Functions {
		if c, found := f.Handler.Code(); found {
			out[c.App] = append(out[c.App], name)
			out[cfg.Apps[c.App].Dir] = append(out[cfg.Apps[c.App].Dir], name)
		}
	}
	return out
}
