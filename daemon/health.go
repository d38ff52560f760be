package daemon

import "net/http"

// This file is how well a daemon is: whether it lives, and whether it takes messages.

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status  string   `json:"status" desc:"ok, or not ready"`
	Reasons []string `json:"reasons,omitempty" desc:"why not"`
}

func (d *Daemon) answerHealth(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Health{Status: "ok"}) // who can say so lives
}

func (d *Daemon) answerReady(w http.ResponseWriter, _ *http.Request) {
	if reasons := d.notReady(); len(reasons) > 0 {
		answer(w, http.StatusServiceUnavailable, Health{"not ready", reasons})
		return
	}
	answer(w, http.StatusOK, Health{Status: "ok"})
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
	}
	if r := d.reloadStatus(); r.misloaded {
		reasons = append(reasons, "the last reload was refused, since code does not load; what ran before runs on: "+r.Refused)
	}
	if count, ok := d.Instances(); ok && count.Ready == 0 && count.Failing != "" {
		reasons = append(reasons, count.Failing)
	}
	return reasons
}
