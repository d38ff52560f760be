package apps

import (
	"maps"
	"sync"
	"time"
)

// Registry holds the pools that run now, and the counts of those that reloads have
// replaced, so that no counter falls. The zero value is empty. It is safe for use by many
// goroutines.
type Registry struct {
	mu       sync.Mutex
	current  map[string]*Pool
	retiring map[*Pool]string  // replaced and still ending, and their apps
	ended    map[string]Status // of those that have ended
}

// UseSet makes the pools of a set the current ones. The others leave.
func (r *Registry) UseSet(s *Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for app, p := range r.current {
		if s.pools[app] != p {
			if r.retiring == nil {
				r.retiring, r.ended = make(map[*Pool]string), make(map[string]Status)
			}
			r.retiring[p] = app
		}
	}
	r.current = s.pools
}

// PoolEnded keeps the counts of a pool that a reload has replaced.
func (r *Registry) PoolEnded(p *Pool) {
	last := p.AppStatus(0).PastCounts()
	r.mu.Lock()
	defer r.mu.Unlock()
	if app, found := r.retiring[p]; found {
		delete(r.retiring, p)
		r.ended[app] = r.ended[app].Plus(last)
	}
}

// CurrentPools returns the current pools by app.
func (r *Registry) CurrentPools() map[string]*Pool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// AppStatuses describes the apps of this process, by app. The resource usage in it is at most
// usageAge old.
func (r *Registry) AppStatuses(usageAge time.Duration) map[string]Status {
	r.mu.Lock()
	pools, leaving, out := r.current, maps.Clone(r.retiring), maps.Clone(r.ended)
	r.mu.Unlock()
	if out == nil {
		out = make(map[string]Status)
	}
	for app, p := range pools {
		out[app] = out[app].Plus(p.AppStatus(usageAge))
	}
	for p, app := range leaving {
		s := p.AppStatus(usageAge)
		s.Retiring += s.Ready + s.Starting
		s.Ready, s.Starting, s.Spare, s.StartUp = 0, 0, 0, 0
		out[app] = out[app].Plus(s)
	}
	return out
}
