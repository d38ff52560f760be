package daemon

import (
	"context"
	"log/slog"
	"math"
	"reflect"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// scaleWorkers has the number of workers follow the load, for each pool whose
// number nobody gave, for as long as the pool lives. It may be called again, when
// the configuration is another.
func (p *parts) scaleWorkers() {
	d := p.daemon
	for app, own := range p.pools {
		settings := p.cfg.Apps[app]
		if own.scaled || !settings.Scaled {
			continue
		}
		own.scaled = true
		own.most.CompareAndSwap(0, int64(settings.Processes))
		w := &workerScaler{app: app, pool: own, daemon: d, log: d.log.With("app", app), meters: make(map[string]*scaler.Meter)}
		own.running.Go(func() { w.run(own.life) })
	}
}

// workerScaler sets the number of a pool's workers.
type workerScaler struct {
	app    string
	pool   *pool
	daemon *Daemon
	policy scaler.Policy
	scaler *scaler.Scaler
	meters map[string]*scaler.Meter // by function
	log    *slog.Logger
}

// backlogLimit bounds a question for a backlog.
const backlogLimit = 2 * time.Second

func (w *workerScaler) run(ctx context.Context) {
	tick := time.NewTicker(configs.WorkersInterval)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look measures, decides, and has it done.
func (w *workerScaler) look(ctx context.Context) {
	if policy := w.daemon.config().Scale.WorkerPolicy(int(w.pool.most.Load())); w.scaler == nil || !reflect.DeepEqual(policy, w.policy) {
		w.policy, w.scaler = policy, scaler.New(policy)
	}
	stats := w.pool.Stats()
	now := time.Now()
	s := scaler.Signals{
		At: now.Sub(processStart), Clock: now,
		Ready: stats.Ready, Starting: stats.Starting, Draining: stats.Retiring, StartUp: stats.StartUp,
		Pressed: w.pool.pressed.Load(),
	}
	needed := 0.0
	for _, f := range w.daemon.running() {
		if _, apart := w.pool.Quarantined()[f.Name]; f.pool != w.pool || apart {
			continue
		}
		c := f.counts(now)
		// While there is room messages come in by themselves: what waits then is no
		// reason for more workers, and the source need not be asked.
		asked := c.Used >= c.Slots
		if c.Backlog = scaler.Unreadable; asked {
			waiting(ctx, f.Trigger, now, &c)
		}
		c.Unsettled = 0 // a retry that is due starts a worker when it is received
		if m := w.meters[f.Name]; m == nil {
			w.meters[f.Name] = new(scaler.Meter)
		}
		load, ok := w.meters[f.Name].Look(f.Name, s.At, c, stats.Ready)
		if !ok {
			return // the first look has no rates
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
		return // its functions were replaced, and what they have in flight ends
	}
	s.Needed = int(math.Ceil(needed))
	d := w.scaler.Decide(s)
	w.pool.Scale(d.Wanted)
	w.daemon.decisions.note("workers of "+w.app, now, d)
	if d.Wanted != stats.Wanted {
		w.log.Info("scaling workers", "from", stats.Wanted, "to", d.Wanted, "bound", d.Bound, "why", d.String())
	}
}

// counts are what the scaler wants to know of a function, but for its backlog.
func (f *function) counts(now time.Time) scaler.Counts {
	s := f.Stats.Counts()
	used, slots := f.Share.Room()
	return scaler.Counts{
		Received: s.Received, Done: s.Received - s.InFlight, Failed: s.Failed, Taken: float64(f.Stats.SlotTime(now)) / 1e6,
		InFlight: s.InFlight, Slots: int64(slots), Used: int64(min(used, slots)),
	}
}

// waiting asks a source what waits there.
func waiting(ctx context.Context, source triggers.Trigger, now time.Time, c *scaler.Counts) {
	ctx, cancel := context.WithTimeout(ctx, backlogLimit)
	defer cancel()
	b, err := source.Backlog(ctx)
	if err != nil {
		c.Backlog = scaler.Unreadable
		return
	}
	c.Backlog, c.AtLeast = b.Ready, b.AtLeast
	c.Unsettled = max(c.Unsettled, b.Unsettled)
	if !b.Oldest.IsZero() {
		c.Oldest = max(now.Sub(b.Oldest), 0)
	}
}
