// Package autoscale determines how much of an app runs at once: the number of its workers by their
// load, and their settings by measuring. It stores what it learned.
package autoscale

import (
	"log/slog"
	"runtime"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/autotune"
)

// Loops scales and tunes pools. All fields are required.
type Loops struct {
	// Running returns the functions that run now, Config the current configuration.
	Running func() []*apps.Function
	Config  func() *configs.Config
	// Backlogs and Decisions are shared with the reports.
	Backlogs  *Backlogs
	Decisions *Decisions
	Store     *Store
	Log       *slog.Logger
}

// saturatedShare is the share of used slots from which on a function may have more messages than
// slots.
const saturatedShare = 0.9

// TunePools starts tuning each pool that is not tuned yet, for as long as the pool lives. It
// is called again after a reload.
func (l *Loops) TunePools(cfg *configs.Config, pools map[string]*apps.Pool) {
	for app, p := range pools {
		if p.Tuner() == nil {
			l.tunePool(cfg, app, p)
		}
	}
}

func (l *Loops) tunePool(cfg *configs.Config, app string, p *apps.Pool) {
	given, free := tuningBounds(cfg.Apps[app], p.IsTunable(), runtime.GOMAXPROCS(0))
	of := appIdentity(cfg, app, p.CodeFingerprint())
	t := newTuner(p, given, free, l.Store.learnedOf(app, of), l.Log.With("app", app))
	load := &loadReader{loops: l, pool: p, slotTime: make(map[string]int64)}
	t.loads, t.used = load.readLoads, load.largestUse
	t.apply = func(d autotune.Decision) { l.applyDecision(p, d, t.sample.Cores, t.log) }
	t.move = func(function string, to *handlers.Slots) { apps.MoveFunction(l.Running(), p, function, to) }
	p.SetTuner(t)
	t.tuneOnce(time.Now()) // the first settings apply before the first message arrives
	save := func(learned autotune.Learned) { l.Store.saveLearned(app, of, learned) }
	p.StartLoop(func() {
		t.runTuning(p.LifeContext(), save)
		save(t.exportLearned())
	})
	p.StartLoop(func() {
		tick := time.NewTicker(saveInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				save(t.exportLearned())
			case <-p.LifeContext().Done():
				return
			}
		}
	})
}

// applyDecision applies a decision of the tuner. The number of workers follows the load: the
// decision limits it, and all of them are started while the functions are saturated.
//
// Each worker's share of the cores follows that limit, and not the load: another share replaces all workers.
func (l *Loops) applyDecision(p *apps.Pool, d autotune.Decision, cores float64, log *slog.Logger) {
	p.MaxWorkers.Store(int64(d.Processes))
	before, share := p.Settings().CoreShare, p.CoreShare(cores, d.Processes)
	p.ApplySettings(workers.Settings{Threads: d.Threads, Coroutines: d.Coroutines, CoreShare: share})
	if share != before {
		log.Info("each worker gets another share of the cores for its libraries, which read it when they are loaded: the workers are replaced one by one",
			"from", before, "to", share, "processes", d.Processes, "cores", cores)
	}
	stats := p.Stats()
	if p.IsScaled() && p.Saturated.Load() && stats.Wanted != d.Processes {
		log.Info("scaling workers", "from", stats.Wanted, "to", d.Processes, "bound", scaler.BoundPressed, "why", d.Note)
		p.Scale(d.Processes)
	}
	ready := max(stats.Ready, 1)
	for _, f := range l.Running() {
		if f.Pool != p {
			continue
		}
		limit := f.Concurrency
		if each := d.Limits[f.Name]; each > 0 && (limit == 0 || each*ready < limit) {
			limit = each * ready
		}
		f.LimitShare(limit)
	}
}

// loadReader reads the load of the functions of a pool. It is for use by one goroutine.
type loadReader struct {
	loops    *Loops
	pool     *apps.Pool
	at       time.Time
	slotTime map[string]int64 // by function, in microseconds, at the previous reading
}

// readLoads returns the load of each function since the previous reading.
func (r *loadReader) readLoads(now time.Time) map[string]load {
	out := make(map[string]load)
	elapsed := now.Sub(r.at)
	first := r.at.IsZero() || elapsed <= 0
	r.at = now
	saturated := false
	for _, f := range r.loops.Running() {
		if f.Pool != r.pool {
			continue
		}
		used, slots := f.Share.Room()
		slotTime := f.Stats.SlotTime(now)
		l := load{limit: f.Concurrency, timeout: f.Timeout}
		if !first {
			l.inFlight = float64(slotTime-r.slotTime[f.Name]) / float64(elapsed.Microseconds())
		}
		r.slotTime[f.Name] = slotTime
		if slots > 0 && max(float64(used), l.inFlight) >= saturatedShare*float64(slots) {
			// The slots may be in use by other functions. Only the backlog of the source shows
			// whether this one has more messages. An unknown backlog counts as more.
			l.saturated = r.loops.Backlogs.ReadBacklog(r.pool.LifeContext(), f.Name, tuningBacklogAge).Ready != 0
		}
		saturated = saturated || l.saturated
		out[f.Name] = l
	}
	r.pool.Saturated.Store(saturated)
	return out
}

// largestUse returns the largest share of its slots that a function uses now, itself or others; 1 if it
// has none.
func (r *loadReader) largestUse() (share float64) {
	for _, f := range r.loops.Running() {
		if f.Pool != r.pool {
			continue
		}
		used, slots := f.Share.Room()
		if slots == 0 {
			return 1
		}
		share = max(share, float64(used)/float64(slots))
	}
	return share
}
