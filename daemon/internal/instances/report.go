package instances

import (
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/triggers"
)

// Report is the report of an instance to its parent.
type Report struct {
	Functions map[string]FunctionReport `json:"functions"`
	Apps      map[string]apps.Status    `json:"apps"`
}

// FunctionReport is the report of an instance on one function.
type FunctionReport struct {
	api.FunctionStatus
	// Taken is how long slots were in use, in slots times microseconds.
	Taken int64 `json:"taken"`
	// Slots is how many slots the function would have with all the workers that this instance may
	// start. Used is how many are in use, by this function or by others.
	Slots int64 `json:"slots"`
	Used  int64 `json:"used"`
	// Holding is how many messages the instance holds until their retry.
	Holding int64 `json:"holding"`
	// Waiting is how many messages wait in the instance, if its source has no other backlog.
	Waiting int64 `json:"waiting,omitempty"`
}

// NewReport returns the report of an instance on its functions and apps. settings are
// the settings of the apps in its configuration.
func NewReport(functions []*apps.Function, statuses map[string]apps.Status, settings map[string]configs.App, now time.Time) Report {
	out := Report{Functions: make(map[string]FunctionReport), Apps: statuses}
	for _, f := range functions {
		used, slots := f.Share.Room()
		r := FunctionReport{FunctionStatus: f.Status(), Taken: f.Stats.SlotTime(now), Slots: int64(slots), Used: int64(min(used, slots))}
		if holder, ok := f.Trigger.(triggers.Holder); ok {
			r.Holding = holder.Holding()
		}
		if local, ok := f.Trigger.(triggers.LocalBacklog); ok {
			r.Waiting = local.WaitingCount()
		}
		if app := settings[f.App]; app.Scaled && r.Workers > 0 {
			r.Slots = max(r.Slots*int64(app.Processes)/int64(r.Workers), r.Slots)
		}
		out.Functions[f.Name] = r
	}
	return out
}
