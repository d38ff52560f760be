// Package api is the JSON of the admin API: the types of the daemon's answers, which commands
// read, and the paths of the requests. It sends and serves nothing, and holds no state. The tags
// desc become the descriptions of the OpenAPI document.
package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/scaler"
)

// Health is the answer of /healthz and /readyz, and of requests that have nothing else to report.
type Health struct {
	Status  string   `json:"status" desc:"ok, or not ready"`
	Reasons []string `json:"reasons,omitempty" desc:"why not"`
	// Notes are problems that do not make the daemon unready: their cause is outside it, or
	// an operator has requested them.
	Notes []string `json:"notes,omitempty" desc:"other problems: sources and apps that cannot be reached, messages that cannot be settled, dead letters and outputs that cannot be written, pauses"`
}

// Problem is the answer to a request that failed.
type Problem struct {
	Error string `json:"error" desc:"what went wrong, and what to do"`
	// LoadError is set if a reload was refused because code does not load.
	LoadError bool `json:"load_error,omitempty" desc:"true if the reason is code that does not load"`
}

// Sent is a message that a source has accepted.
type Sent struct {
	Function    string    `json:"function"`
	ID          string    `json:"id,omitempty" desc:"the message's ID; missing if the source gives it later"`
	ScheduledAt time.Time `json:"scheduled_at,omitzero" desc:"when it can be received; missing if at once"`
}

// Changes are the functions that a reload changed, by name.
type Changes struct {
	Added   []string `json:"added,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Kept    []string `json:"kept,omitempty"`
}

// String returns them as one line of text.
func (c Changes) String() string {
	var parts []string
	for _, part := range []struct {
		what  string
		names []string
	}{{"added", c.Added}, {"changed", c.Changed}, {"removed", c.Removed}} {
		if len(part.names) > 0 {
			parts = append(parts, part.what+" "+strings.Join(part.names, ", "))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing changed"}
	}
	kept := "functions continue"
	if len(c.Kept) == 1 {
		kept = "function continues"
	}
	return fmt.Sprintf("%s; %d %s", strings.Join(parts, "; "), len(c.Kept), kept)
}

// StateUnknown is the state of a message that is unknown to the daemon and to all sources.
const StateUnknown = "unknown"

// Explanation is the reason why a function or a message waits.
type Explanation struct {
	Function string   `json:"function,omitempty"`
	Message  string   `json:"message,omitempty" desc:"the message ID; missing if a function is explained"`
	Instance int      `json:"instance,omitempty" desc:"the instance that reports this, if there are several"`
	State    string   `json:"state" desc:"of a function: receiving, full, blocked, no_worker, app_down, unreachable, paused, stopped, starting or stopping; of a message: in_flight, stuck, retry, ready, held, later, leased, done, spent, dead or unknown"`
	Text     string   `json:"text" desc:"the limit that applies, in a sentence"`
	Notes    []string `json:"notes,omitempty" desc:"more, usually one line each"`
	// Details are the numbers of the explanation.
	Details []string `json:"details,omitempty" desc:"the details: slots, workers, and the scaler's latest decision with its formula"`
}

// Explanations is the answer of /v1/explain.
type Explanations struct {
	Explanations []Explanation `json:"explanations"`
}

// Decided is the latest decision of the scaler on one target. The answer of /v1/scale has
// one for each target.
type Decided struct {
	At      time.Time    `json:"at"`
	Wanted  int          `json:"wanted"`
	Current int          `json:"current"`
	Bound   scaler.Bound `json:"bound" desc:"the bound that applied; formula if none did"`
	// Sentence is a summary without the formula.
	Sentence string `json:"sentence" desc:"the decision in a sentence"`
	// Text is human-readable: the inputs, the formula, and the bound.
	Text string `json:"text" desc:"the inputs, the formula and the bound, as text"`
	// Count is how often each bound has applied since the daemon started.
	Count map[scaler.Bound]int64 `json:"count" desc:"how often each bound applied"`
}
