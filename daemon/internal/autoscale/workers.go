package autoscale

import (
	"context"
	"log/slog"
	"math"
	"reflect"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/scaling"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler"
)

// ScaleWorkers starts scaling the workers of each pool whose number is not configured, for
// as long as the pool lives. It is called again after a reload.
func (l *Loops) ScaleWorkers(cfg *configs.Config, pools map[string]*apps.Pool) {
	for app, p := range pools {
		settings := cfg.Apps[app]
		if !settings.Scaled || !p.ClaimScaling() {
			continue
		}
		p.MaxWorkers.CompareAndSwap(0, int64(settings.Processes))
		w := &workerScaler{app: app, pool: p, loops: l, log: l.Log.With("app", app), meters: make(map[string]*scaler.Meter)}
		p.StartLoop(func() { w.runScaling(p.LifeContext()) })
	}
}

// workerScaler scales the workers of one pool.
type workerScaler struct {
	app    string
	pool   *apps.Pool
	loops  *Loops
	policy scaler.Policy
	scaler *scaler.Scaler
	meters map[string]*scaler.Meter // by function
	log    *slog.Logger
}

func (w *workerScaler) runScaling(ctx context.Context) {
	tick := time.NewTicker(scaling.WorkersInterval)
	defer tick.Stop()
	for {
		w.scaleOnce(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// scaleOnce measures, decides and applies the decision.
func (w *workerScaler) scaleOnce(ctx context.Context) {
	if policy := w.loops.Config().Scale.WorkerPolicy(int(w.pool.MaxWorkers.Load())); w.scaler == nil || !reflect.DeepEqual(policy, w.policy) {
		w.policy, w.scaler = policy, scaler.New(policy)
	}
	stats := w.pool.Stats()
	now := time.Now()
	s := scaler.Signals{
		At: now.Sub(telemetry.ProcessStart), Clock: now,
		Ready: stats.Ready, Starting: stats.Starting, Draining: stats.Retiring, StartUp: stats.StartUp,
		Pressed: w.pool.Saturated.Load(),
	}
	needed := 0.0
	for _, f := range w.loops.Running() {
		if _, isolated := w.pool.QuarantinedWorkers()[f.Name]; f.Pool != w.pool || isolated {
			continue
		}
		c := functionCounts(f, now)
		// While slots are free, messages are received without more workers: the backlog does not
		// matter, and no request to the source is needed.
		asked := c.Used >= c.Slots
		if c.Backlog = scaler.Unreadable; asked {
			// Messages that wait for a retry do not count: one that is due starts a worker when it is received.
			w.loops.Backlogs.ReadBacklog(ctx, f.Name, scalingBacklogAge).addTo(&c, now)
		}
		if m := w.meters[f.Name]; m == nil {
			w.meters[f.Name] = new(scaler.Meter)
		}
		load, ok := w.meters[f.Name].Look(f.Name, s.At, c, stats.Ready)
		if !ok {
			return // the first evaluation has no rates
		}
		if !asked {
			load.Backlog = 0
		}
		if load.Slots > 0 {
			needed = max(needed, float64(c.Used)/load.Slots)
		}
		s.Loads = append(s.Loads, load)
	}
	if len(s.Loads) == 0 {
		return // its functions were replaced; their messages in flight finish
	}
	s.Needed = int(math.Ceil(needed))
	d := w.scaler.Decide(s)
	w.pool.Scale(d.Wanted)
	w.loops.Decisions.SetDecision("workers of "+w.app, now, d)
	if d.Wanted != stats.Wanted {
		w.log.Info("scaling workers", "from", stats.Wanted, "to", d.Wanted, "bound", d.Bound, "why", d.String())
	}
}

// functionCounts returns the counts of a function that the scaler needs, without its
// backlog.
func functionCounts(f *apps.Function, now time.Time) scaler.Counts {
	s := f.Stats.ReadCounts()
	used, slots := f.Share.Room()
	return scaler.Counts{
		Received: s.Received, Done: s.Received - s.InFlight, Failed: s.Failed, Taken: float64(f.Stats.SlotTime(now)) / 1e6,
		InFlight: s.InFlight, Slots: int64(slots), Used: int64(min(used, slots)),
	}
}
