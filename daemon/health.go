package daemon

import (
	"fmt"
	"net/http"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

// This file is how well a daemon is: whether it lives, and whether it takes messages.

func healthRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "getHealth", Method: http.MethodGet, Path: api.HealthPath, Help: "Whether the process lives.",
		Answer: api.Health{}, Public: true, Handler: d.answerHealth,
	}, {
		ID: "getReadiness", Method: http.MethodGet, Path: api.ReadyPath, Help: "Whether messages are received, and if not, why.",
		Answer: api.Health{}, AlsoStatuses: []int{http.StatusServiceUnavailable}, Public: true, Handler: d.answerReady,
	}}
}

func (d *Daemon) answerHealth(w http.ResponseWriter, _ *http.Request) {
	admin.Answer(w, http.StatusOK, api.Health{Status: "ok"}) // who can say so lives
}

func (d *Daemon) answerReady(w http.ResponseWriter, _ *http.Request) {
	if reasons := d.notReady(); len(reasons) > 0 {
		admin.Answer(w, http.StatusServiceUnavailable, api.Health{Status: "not ready", Reasons: reasons, Notes: d.notWell()})
		return
	}
	admin.Answer(w, http.StatusOK, api.Health{Status: "ok", Notes: d.notWell()})
}

// notWell says what keeps functions from receiving, though the daemon is ready: it
// is mended elsewhere, and a daemon that was taken for unready, or started anew,
// would mend none of it.
func (d *Daemon) notWell() (notes []string) {
	for _, f := range d.Status() {
		switch {
		case !f.Disconnected.IsZero():
			notes = append(notes, fmt.Sprintf("function %s receives nothing: its source has been unreachable for %v", f.Name, time.Since(f.Disconnected).Round(time.Second))+because(f.ReceiveError))
		case f.Gate == api.GateShut:
			notes = append(notes, "function "+f.Name+" receives nothing: its app is not well")
		case f.Paused:
			notes = append(notes, "function "+f.Name+" is paused by hand")
		}
		for _, p := range f.Problems {
			if !p.Blocks { // that is a reason not to be ready
				notes = append(notes, "function "+f.Name+": "+p.OneLine())
			}
		}
	}
	return notes
}

// because is a reason to append, if there is one.
func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// phase is where a daemon is in its life.
type phase string

const (
	phaseStarting phase = "starting"
	phaseRunning  phase = "running"
	phaseStopping phase = "stopping"
)

func (d *Daemon) enter(p phase) { d.phase.Store(p) }

func (d *Daemon) inPhase() phase {
	if p, ok := d.phase.Load().(phase); ok {
		return p
	}
	return phaseStarting
}

// notReady says why the daemon takes no messages; nothing if it does.
func (d *Daemon) notReady() (reasons []string) {
	if p := d.inPhase(); p != phaseRunning {
		return []string{"it is " + string(p)}
	}
	for _, f := range d.Status() {
		if f.Stopped {
			reasons = append(reasons, "function "+f.Name+" has stopped: its code does not load")
		}
		for _, p := range f.Problems {
			if p.Blocks {
				reasons = append(reasons, "function "+f.Name+": "+p.OneLine())
			}
		}
	}
	for _, p := range d.stores.problems() {
		reasons = append(reasons, p.OneLine())
	}
	if r := d.lastReload(); r.loadError {
		reasons = append(reasons, "the last reload was refused because code does not load; the earlier functions keep running: "+r.Refused)
	}
	if count, ok := d.Instances(); ok && count.Ready == 0 && count.Failing != "" {
		reasons = append(reasons, count.Failing)
	}
	return reasons
}
