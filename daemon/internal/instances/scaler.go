package instances

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
)

// Scaler sets the number of instances. It is for use by one goroutine.
type Scaler struct {
	Fleet     *Fleet
	Config    func() *configs.Config
	Decisions *autoscale.Decisions
	Log       *slog.Logger
	// Wanted is how many instances should run.
	Wanted int

	policy scaler.Policy
	scaler *scaler.Scaler
	meters map[string]*scaler.Meter // by function
}

// ScaleOnce measures, decides and applies the decision.
func (s *Scaler) ScaleOnce(ctx context.Context) {
	log, scale := s.Log, s.Config().Scale
	if policy := scale.InstancePolicy(); s.scaler == nil || !reflect.DeepEqual(policy, s.policy) {
		s.policy, s.scaler = policy, scaler.New(policy)
	}
	count, err := s.Fleet.provisioner.Count(ctx)
	if err != nil {
		log.Error("cannot count the instances; their number stays", "error", err)
		return
	}
	totals := s.Fleet.FunctionTotals()
	now := time.Now()
	in := scaler.Signals{
		At: now.Sub(telemetry.ProcessStart), Clock: now.In(scale.Location()),
		Ready: count.Ready, Starting: count.Starting, Draining: count.Draining, StartUp: count.StartUp, Failing: count.Failing,
	}
	needed, known := 0.0, true
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		c := s.Fleet.functionCounts(ctx, name, totals[name], now)
		if s.meters == nil {
			s.meters = make(map[string]*scaler.Meter)
		}
		if s.meters[name] == nil {
			s.meters[name] = new(scaler.Meter)
		}
		load, ok := s.meters[name].Look(name, in.At, c, count.Ready)
		known = known && ok
		if load.Slots > 0 {
			needed = max(needed, float64(c.Used)/load.Slots)
		}
		in.Loads = append(in.Loads, load)
	}
	if !known || ctx.Err() != nil {
		return // the first measurement has no rates
	}
	in.Needed = int(math.Ceil(needed))
	d := s.scaler.Decide(in)
	s.Decisions.SetDecision("instances", now, d)
	if d.Wanted == s.Wanted {
		return
	}
	if err := s.Fleet.provisioner.Set(ctx, d.Wanted); err != nil {
		log.Error("cannot set the number of instances", "error", err)
		return
	}
	log.Info("scaling instances", "from", s.Wanted, "to", d.Wanted, "bound", d.Bound, "why", d.String())
	s.Wanted = d.Wanted
}
