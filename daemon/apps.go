package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// This file is how the worker processes of apps are, in this daemon or in all of
// its instances together.

// appStatus is what there is to say of an app's worker processes.
type appStatus struct {
	Ready    int                   `json:"ready"`
	Starting int                   `json:"starting"`
	Retiring int                   `json:"retiring"`
	Restarts map[process.Cause]int `json:"restarts"`
	StartUp  time.Duration         `json:"start_up"`
	// Spawned says that each worker loads the code, which could be forked; Unforked
	// why it does though it should be.
	Spawned  bool          `json:"spawned,omitempty"`
	Unforked string        `json:"unforked,omitempty"`
	Usage    process.Usage `json:"usage"`
	// Waits are for the event loops; nil or empty where there is none.
	Waits *Latencies `json:"waits"`
	// Blocked are the functions that block them; "" is code of no message.
	Blocked map[string]workers.Blocked `json:"blocked,omitempty"`
	// Threaded are the async functions that run in threads for that.
	Threaded []string `json:"threaded,omitempty"`
	// Apart are the functions that are kept apart for that, and how many workers each has.
	Apart map[string]int `json:"apart,omitempty"`
	// Tuned is what measuring has found; nil before it has.
	Tuned    *tuned            `json:"tuned,omitempty"`
	Measures []worker.Measures `json:"measures,omitempty"`
}

// usage remembers what processes use: to read it takes a while, and many may ask.
// The zero value knows nothing.
type usage struct {
	mu   sync.Mutex
	at   time.Time
	last process.Usage
}

// of returns what a pool's processes used at most so long ago.
func (u *usage) of(p *workers.Pool, fresh time.Duration) process.Usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); u.at.IsZero() || now.Sub(u.at) >= fresh {
		u.at, u.last = now, p.Usage()
	}
	return u.last
}

// usageFresh is how old what processes use may be where somebody asks, and
// usageReported where an instance tells it unasked.
const (
	usageFresh    = time.Second
	usageReported = 5 * time.Second
)

// pools are the worker processes of this process, by app.
func (d *Daemon) pools() map[string]*pool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openPools()
}

// openPools are the same; d.mu is held.
func (d *Daemon) openPools() map[string]*pool {
	if d.open == nil || len(d.functions) == 0 {
		return nil // they are still being opened
	}
	return d.open.pools
}

// replaced is what was of the pools that reloads have replaced, so that nothing that
// is counted falls. The zero value has none; the daemon's mu guards it.
type replaced struct {
	leaving map[*pool]string     // those that still end, and their apps
	past    map[string]appStatus // what stays of those that have ended
}

// leave notes which pools end when next follows now; d.mu is held.
func (r *replaced) leave(now, next *parts) {
	if now == nil {
		return
	}
	for app, own := range now.pools {
		if next.pools[app] != own {
			if r.leaving == nil {
				r.leaving, r.past = make(map[*pool]string), make(map[string]appStatus)
			}
			r.leaving[own] = app
		}
	}
}

// poolEnded keeps what stays of a pool, if it has been replaced.
func (d *Daemon) poolEnded(own *pool) {
	last := own.status(0).past()
	d.mu.Lock()
	defer d.mu.Unlock()
	if app, found := d.replaced.leaving[own]; found {
		delete(d.replaced.leaving, own)
		d.replaced.past[app] = d.replaced.past[app].plus(last)
	}
}

// status is what there is to say of a pool.
func (p *pool) status(fresh time.Duration) appStatus {
	s := p.Stats()
	return appStatus{
		Ready: s.Ready, Starting: s.Starting, Retiring: s.Retiring, Restarts: s.Restarts, StartUp: s.StartUp,
		Spawned: s.Forkable && !s.Template, Unforked: s.Unforked,
		Usage: p.usage.of(p.Pool, fresh), Waits: p.waits.Snapshot(), Blocked: p.Blocked(), Apart: p.Quarantined(), Threaded: p.Threaded(),
		Tuned: p.tuner.Load().state(), Measures: p.Measures(),
	}
}

// templatePays is the start-up from which a template is advised.
const templatePays = 500 * time.Millisecond

// blockedAdvice is the same, for functions that block the event loop.
func (s appStatus) blockedAdvice() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(s.Blocked)) {
		b := s.Blocked[name]
		if b.Times == 0 {
			continue
		}
		who := "function " + name
		if name == "" {
			who = "code of no message"
		}
		if n, is := s.Apart[name]; is {
			who = fmt.Sprintf("function %s is isolated in its own worker processes (%d), because it", name, n)
		}
		if slices.Contains(s.Threaded, name) {
			who = fmt.Sprintf("function %s runs in threads, because it", name)
		}
		out = append(out, fmt.Sprintf("%s blocked the event loop %d times, at most for %v, at %s: %s",
			who, b.Times, b.Longest.Round(time.Millisecond), b.Place, b.Instead()))
	}
	return out
}

// advice is what would serve the app better; "" if nothing is known.
func (s appStatus) advice() string {
	switch {
	case s.Unforked != "":
		return "it has start: template, but each worker loads the code itself, since " + s.Unforked
	case s.Tuned != nil && s.Tuned.Advice != "":
		return s.Tuned.Advice
	case s.Spawned && s.StartUp >= templatePays:
		return fmt.Sprintf("a worker takes %v to load the code; with start: template one takes milliseconds, and they share memory", s.StartUp.Round(100*time.Millisecond))
	}
	return ""
}

// ownApps are the apps whose workers are this process's.
func (d *Daemon) ownApps(fresh time.Duration) map[string]appStatus {
	d.mu.Lock()
	pools := d.openPools()
	out, leaving := maps.Clone(d.replaced.past), maps.Clone(d.replaced.leaving)
	d.mu.Unlock()
	if out == nil {
		out = make(map[string]appStatus)
	}
	for name, p := range pools {
		out[name] = out[name].plus(p.status(fresh))
	}
	for p, name := range leaving {
		s := p.status(fresh)
		s.Retiring += s.Ready + s.Starting
		s.Ready, s.Starting, s.StartUp = 0, 0, 0
		out[name] = out[name].plus(s)
	}
	return out
}

// appStatuses are those of all apps.
func (d *Daemon) appStatuses() map[string]appStatus {
	if fleet := d.instances(); fleet != nil {
		return fleet.apps()
	}
	return d.ownApps(usageFresh)
}

// plus adds what another instance has.
func (s appStatus) plus(o appStatus) appStatus {
	sum := s
	sum.Ready += o.Ready
	sum.Starting += o.Starting
	sum.Retiring += o.Retiring
	sum.Restarts = make(map[process.Cause]int)
	for _, part := range []map[process.Cause]int{s.Restarts, o.Restarts} {
		for cause, n := range part {
			sum.Restarts[cause] += n
		}
	}
	sum.StartUp = max(s.StartUp, o.StartUp)
	sum.Spawned = s.Spawned || o.Spawned
	sum.Unforked = cmp.Or(s.Unforked, o.Unforked)
	sum.Usage.CPU += o.Usage.CPU
	sum.Usage.Known = s.Usage.Known || o.Usage.Known
	sum.Usage.Memory.Resident += o.Usage.Memory.Resident
	sum.Usage.Memory.Anonymous += o.Usage.Memory.Anonymous
	sum.Usage.Memory.Proportional += o.Usage.Memory.Proportional
	sum.Usage.Largest = max(s.Usage.Largest, o.Usage.Largest)
	sum.Waits = s.Waits.Plus(o.Waits)
	sum.Blocked = maps.Clone(s.Blocked)
	sum.Threaded = slices.Compact(slices.Sorted(slices.Values(slices.Concat(s.Threaded, o.Threaded))))
	sum.Apart = maps.Clone(s.Apart)
	for name, n := range o.Apart {
		if sum.Apart == nil {
			sum.Apart = make(map[string]int)
		}
		sum.Apart[name] += n
	}
	for name, b := range o.Blocked {
		if sum.Blocked == nil {
			sum.Blocked = make(map[string]workers.Blocked)
		}
		sum.Blocked[name] = sum.Blocked[name].Plus(b)
	}
	sum.Tuned = cmp.Or(s.Tuned, o.Tuned) // each instance finds its own; they are of one code on one machine
	if s.Tuned != nil && o.Tuned != nil && len(s.Tuned.Undone) == 0 && len(o.Tuned.Undone) > 0 {
		both := *s.Tuned
		both.Undone = o.Tuned.Undone
		sum.Tuned = &both
	}
	sum.Measures = worker.SumOf(s.Measures, o.Measures)
	return sum
}

// past is what stays of an app when its processes are gone.
func (s appStatus) past() appStatus {
	return appStatus{Restarts: s.Restarts, Usage: process.Usage{CPU: s.Usage.CPU}, Waits: s.Waits, Blocked: s.Blocked, Measures: s.Measures}
}
