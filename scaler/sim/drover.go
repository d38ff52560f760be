package sim

import (
	"time"

	"github.com/drover-run/drover/scaler"
)

// Drover is drover's own policy, with the bounds of the model.
func Drover(p scaler.Policy) Policy {
	return Policy{Name: "drover", IdleFirst: true, New: func(m Model) Autoscaler {
		p.Min, p.Max = m.Min, m.Max
		return &droverScaler{policy: p, scaler: scaler.New(p)}
	}}
}

type droverScaler struct {
	policy scaler.Policy
	scaler *scaler.Scaler
	meter  scaler.Meter
	// last is the latest decision.
	last scaler.Decision
}

func (d *droverScaler) DecideEvery() time.Duration { return d.policy.Interval }

func (d *droverScaler) DecideUnits(v View) int {
	slots := int64(v.Slots)
	load, _ := d.meter.Look("function", v.At, scaler.Counts{
		Received: v.Received, Done: v.Done, Taken: v.Taken, InFlight: v.InFlight, Used: v.InFlight,
		Slots: slots * int64(v.Ready), Backlog: v.Backlog, Oldest: v.Oldest,
	}, v.Ready)
	d.last = d.scaler.Decide(scaler.Signals{
		At: v.At, Clock: time.Unix(0, 0).UTC().Add(v.At), Loads: []scaler.Load{load},
		Ready: v.Ready, Starting: v.Starting, Draining: v.Draining,
		Needed: int((v.InFlight + slots - 1) / slots), StartUp: v.StartUp,
	})
	return d.last.Wanted
}
