package api

import (
	"fmt"
	"strings"
	"time"
)

// StatusReport is the answer of /v1/status.
type StatusReport struct {
	Phase     string             `json:"phase" desc:"starting, running or stopping"`
	Since     time.Time          `json:"since" desc:"when the process began"`
	Instances *InstancesStatus   `json:"instances,omitempty" desc:"if there are several"`
	Reload    *ReloadStatus      `json:"reload,omitempty" desc:"if one was requested"`
	Functions []FunctionOverview `json:"functions"`
	NotRun    []NotRun           `json:"not_run,omitempty" desc:"functions of an Azure Functions app that do not run"`
	Problems  []FunctionProblem  `json:"problems,omitempty" desc:"problems of the daemon as a whole: the embedded server's store is disabled"`
	Apps      []AppOverview      `json:"apps,omitempty" desc:"the worker processes of each app"`
	Advice    []string           `json:"advice,omitempty" desc:"advice for the apps, from measurements"`
}

// NotRun is a function of an Azure Functions app that does not run.
type NotRun struct {
	Name   string `json:"name"`
	Reason string `json:"reason" desc:"why it does not run"`
	Failed bool   `json:"failed,omitempty" desc:"true if it has an error; otherwise it is disabled, or drover lacks what it needs"`
}

// OneLine describes it in one line.
func (f NotRun) OneLine() string {
	reason, _, _ := strings.Cut(f.Reason, "\n")
	return fmt.Sprintf("function %s does not run: %s", f.Name, reason)
}

// The values of StatusReport.Phase.
const (
	PhaseStarting = "starting"
	PhaseRunning  = "running"
	PhaseStopping = "stopping"
)

// InstancesStatus counts instances.
type InstancesStatus struct {
	Ready    int    `json:"ready"`
	Starting int    `json:"starting"`
	Draining int    `json:"draining"`
	Failing  string `json:"failing,omitempty" desc:"why they do not start"`
}

// ReloadStatus reports the outcome of reloads.
type ReloadStatus struct {
	// At is the time of the last request; zero if there was none.
	At time.Time `json:"at" desc:"when the last one was requested"`
	// Refused is the reason why the last one changed nothing; empty if it did not fail.
	Refused string `json:"refused,omitempty" desc:"why the last one changed nothing; missing if it did not fail"`
	// Done and Failed count the reloads.
	Done   int64 `json:"done"`
	Failed int64 `json:"failed"`
}

// AppOverview reports how much of an app runs at once, and why.
type AppOverview struct {
	Name       string `json:"name"`
	Ready      int    `json:"ready" desc:"worker processes that receive messages"`
	Processes  int    `json:"processes" desc:"maximum number of worker processes"`
	Threads    int    `json:"threads" desc:"threads of each, for functions that are not async"`
	Coroutines int    `json:"coroutines" desc:"async calls in flight in each"`
	CoreShare  int    `json:"core_share" desc:"cores that the libraries of each use, if they compute with threads of their own"`
	// Auto lists which of the three settings drover determines by measuring.
	Auto  []string `json:"auto" desc:"those of processes, threads and coroutines that are not set, but measured"`
	Phase string   `json:"phase" desc:"phase of the measurement: start, climb, trim, hold, idle, disturbed, memory or explicit"`
	Note  string   `json:"note" desc:"the reason"`
	// Undone are changes of the settings that drover reverted.
	Undone []UndoneChange `json:"undone,omitempty" desc:"changes of the settings that drover reverted because calls failed after them"`
}

// UndoneChange is a change of an app's settings that drover reverted, because calls failed
// right after it.
type UndoneChange struct {
	Setting  string `json:"setting" desc:"processes, threads, coroutines or on_blocked"`
	Value    int    `json:"value,omitempty" desc:"the current value; missing for on_blocked"`
	Tried    int    `json:"tried,omitempty" desc:"the value under which calls failed"`
	Function string `json:"function" desc:"a function whose calls failed"`
	Error    string `json:"error" desc:"the error of one of them"`
	Checked  bool   `json:"checked" desc:"whether calls have succeeded without the change; false while that is being checked"`
	Set      string `json:"set" desc:"the key and value that prevent this change"`
	Text     string `json:"text" desc:"all of this in a sentence"`
}
