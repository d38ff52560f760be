package status

import (
	"fmt"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
)

// functionState is the limit of a function, and the reason.
type functionState struct{ state, reason string }

// functionStates returns the states of the functions of this process, by name. It is empty if
// other instances run them.
func (v *View) functionStates(now time.Time) map[string]functionState {
	states := make(map[string]functionState)
	if v.Fleet() != nil {
		return states
	}
	for _, f := range v.Running() {
		state, reason := v.LimitingFactor(f, now)
		states[f.Name] = functionState{state, reason}
	}
	return states
}

// stateOf returns the state of a function, and the reason. For several instances, it uses the sum of
// their reports.
func (v *View) stateOf(f *api.FunctionOverview, states map[string]functionState) (state, reason string) {
	s, found := states[f.Name]
	if !found {
		s = v.stateOfSum(f, time.Now())
	}
	if s.state != api.StateReceiving {
		return s.state, s.reason
	}
	if f.InFlight == 0 && (f.Backlog == nil || *f.Backlog == 0) {
		return api.StateIdle, ""
	}
	return api.StateReceiving, ""
}

// stateOfSum returns the state of a function that several instances run. Only the instances know
// which slots are in use: drover explain asks them.
func (v *View) stateOfSum(f *api.FunctionOverview, now time.Time) functionState {
	blocking := blockingProblem(f.Problems)
	count, _ := v.countInstances()
	switch {
	case v.Phase() == api.PhaseStopping:
		return functionState{api.PhaseStopping, "the daemon is stopping"}
	case f.Stopped:
		return functionState{api.StateStopped, "it is disabled, because its code does not load; drover explain " + f.Name + " shows the error"}
	case f.Paused:
		return functionState{api.StatePaused, pausedReason(f.Name, f.PausedUntil)}
	case !f.Disconnected.IsZero():
		return functionState{api.StateUnreachable, fmt.Sprintf("its source has been unreachable for %v", now.Sub(f.Disconnected).Round(time.Second)) + reasonSuffix(f.ReceiveError)}
	case blocking != nil:
		return functionState{api.StateBlocked, blocking.OneLine()}
	case f.Gate == api.GateShut:
		return functionState{api.StateAppDown, "its app is down; nothing is received until it is up"}
	case count.Ready == 0:
		return functionState{api.PhaseStarting, "no instance is ready"}
	case f.WaitsForMemory:
		return functionState{api.StateMemory, "it waits for memory; in_flight_memory is the limit"}
	}
	return functionState{state: api.StateReceiving}
}

// pausedReason describes a pause; until is zero if it has no end.
func pausedReason(function string, until time.Time) string {
	if until.IsZero() {
		return "it stays paused until you run drover resume " + function
	}
	return fmt.Sprintf("it stays paused until %s, or until you run drover resume %s", until.Local().Format(time.DateTime), function)
}
