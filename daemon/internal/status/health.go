package status

import (
	"fmt"
	"net/http"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

func handleHealth(w http.ResponseWriter, _ *http.Request) {
	admin.WriteJSON(w, http.StatusOK, api.Health{Status: "ok"})
}

func (v *View) handleReady(w http.ResponseWriter, _ *http.Request) {
	if reasons := v.UnreadyReasons(); len(reasons) > 0 {
		admin.WriteJSON(w, http.StatusServiceUnavailable, api.Health{Status: "not ready", Reasons: reasons, Notes: v.HealthNotes()})
		return
	}
	admin.WriteJSON(w, http.StatusOK, api.Health{Status: "ok", Notes: v.HealthNotes()})
}

// HealthNotes returns why functions do not receive although the daemon is ready. The causes are
// outside the daemon, so a restart would not remove them.
func (v *View) HealthNotes() (notes []string) {
	for _, f := range v.FunctionStatuses() {
		switch {
		case !f.Disconnected.IsZero():
			notes = append(notes, fmt.Sprintf("function %s receives nothing: its source has been unreachable for %v", f.Name, time.Since(f.Disconnected).Round(time.Second))+reasonSuffix(f.ReceiveError))
		case f.Gate == api.GateShut:
			notes = append(notes, "function "+f.Name+" receives nothing: its app is not healthy")
		case f.Paused:
			notes = append(notes, "function "+f.Name+" is paused")
		}
		for _, p := range f.Problems {
			if !p.Blocks { // problems that block are reasons not to be ready
				notes = append(notes, "function "+f.Name+": "+p.OneLine())
			}
		}
	}
	for _, f := range v.notRun() {
		if f.Failed {
			notes = append(notes, f.OneLine())
		}
	}
	return notes
}

// reasonSuffix returns a reason to append, or nothing if why is empty.
func reasonSuffix(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// UnreadyReasons returns why the daemon receives no messages; empty if it does.
func (v *View) UnreadyReasons() (reasons []string) {
	if p := v.Phase(); p != api.PhaseRunning {
		return []string{"it is " + p}
	}
	for _, f := range v.FunctionStatuses() {
		if f.Stopped {
			reasons = append(reasons, "function "+f.Name+" has stopped: its code does not load")
		}
		for _, p := range f.Problems {
			if p.Blocks {
				reasons = append(reasons, "function "+f.Name+": "+p.OneLine())
			}
		}
	}
	for _, p := range v.storeProblems() {
		reasons = append(reasons, p.OneLine())
	}
	if r := v.Reload(); r.LoadError {
		reasons = append(reasons, "the last reload was refused because code does not load; the earlier functions keep running: "+r.Refused)
	}
	if count, ok := v.countInstances(); ok && count.Ready == 0 && count.Failing != "" {
		reasons = append(reasons, count.Failing)
	}
	return reasons
}
