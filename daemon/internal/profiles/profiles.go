// Package profiles profiles the functions of a running daemon, for the admin API: it samples the stacks of
// a function's calls in its worker processes, or in this process if it is a Go function. With several
// instances it adds up their profiles. One profile runs at a time. Any goroutine may call a handler.
package profiles

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/instances"
)

// View is the state of a daemon that this package uses. The functions may be called from any goroutine.
type View struct {
	Config  func() *configs.Config
	Running func() []*apps.Function // those of this process; empty before the start
	Fleet   func() *instances.Fleet // nil if this process runs the functions itself
	DataDir func() string           // has the directories of the instances
}

// profiler serves the requests of one daemon.
type profiler struct {
	*View

	mu    sync.Mutex
	busy  string    // the function of the running profile; empty: none runs
	until time.Time // when it ends
}

// Routes returns the routes of the admin API for profiles.
func Routes(v *View) []admin.Route {
	p := &profiler{View: v}
	return []admin.Route{{
		ID: "profileFunction", Method: http.MethodPost, Path: api.ProfilePattern, Help: "Sample the stacks of a function's calls for a while. The answer comes when that is over; a request that is aborted ends it.",
		Params:   []admin.Param{admin.FunctionParam, {Name: "seconds", Help: "how long, from 1 to 300; 10 by default"}},
		Response: api.Profile{}, Handler: p.handle,
		ErrorStatuses: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}}
}

func (p *profiler) handle(w http.ResponseWriter, r *http.Request) {
	name, functions := r.PathValue("name"), p.Config().Functions
	if _, found := functions[name]; !found {
		admin.WriteNotFound(w, name, slices.Sorted(maps.Keys(functions)))
		return
	}
	length, err := api.ParseProfileLength(r.URL.Query().Get("seconds"))
	if err != nil {
		admin.WriteError(w, http.StatusBadRequest, "%v", err)
		return
	}
	if why := refuseKind(functions[name].Handler); why != "" {
		admin.WriteError(w, http.StatusUnprocessableEntity, "function %s cannot be profiled: %s", name, why)
		return
	}
	if busy, left := p.begin(name, length); busy != "" {
		admin.WriteError(w, http.StatusConflict, "function %s is being profiled, for up to %v more, and one profile runs at a time; try again after it", busy, left)
		return
	}
	defer p.end()
	out, err := p.profile(r.Context(), name, length)
	var unprofilable *unprofilableError
	switch {
	case errors.As(err, &unprofilable):
		admin.WriteError(w, http.StatusUnprocessableEntity, "function %s cannot be profiled: %v", name, err)
	case err != nil:
		admin.WriteError(w, http.StatusServiceUnavailable, "%v", err)
	default:
		admin.WriteJSON(w, http.StatusOK, out)
	}
}

// begin reserves the profiler. If another profile runs, it returns that function, and the time that is left.
func (p *profiler) begin(function string, length time.Duration) (busy string, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy != "" {
		return p.busy, max(time.Until(p.until), time.Second).Round(time.Second)
	}
	p.busy, p.until = function, time.Now().Add(length)
	return "", 0
}

func (p *profiler) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = ""
}

func (p *profiler) profile(ctx context.Context, name string, length time.Duration) (*api.Profile, error) {
	if fleet := p.Fleet(); fleet != nil {
		return profileInstances(ctx, p.DataDir(), fleet.InstanceIDs(), name, length)
	}
	running := p.Running()
	at := slices.IndexFunc(running, func(f *apps.Function) bool { return f.Name == name })
	if at < 0 {
		return nil, fmt.Errorf("function %s is not open yet: the daemon is starting", name)
	}
	f := running[at]
	if f.Pool == nil && f.Labels == nil {
		return nil, &unprofilableError{"its handler is neither a handlers.Func nor a handlers.BatchFunc; set admin: {pprof: true}, and profile the program with go tool pprof"}
	}
	before := f.Stats.ReadCounts()
	var out *api.Profile
	var err error
	if f.Pool != nil {
		out, err = profileWorkers(ctx, f, length)
	} else {
		out, err = profileGo(ctx, f, length)
	}
	if err != nil {
		return nil, err
	}
	out.Function, out.Seconds = name, length.Seconds()
	out.Calls = f.Stats.ReadCounts().Received - before.Received + before.InFlight
	return out, nil
}

// refuseKind returns why functions with a handler cannot be profiled, and what to do instead; empty if they
// can.
func refuseKind(settings configs.Handler) string {
	switch {
	case settings.Exec != nil:
		return "it runs a command for each message; profile that command with a tool of its language, such as py-spy or perf"
	case settings.HTTP != nil:
		return "it posts its messages to an HTTP app; profile the app with a tool of its language, such as py-spy or perf"
	}
	return ""
}
