package daemon

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// This file is how things are, as they are told to operators.

// StatusReport is the answer of /v1/status.
type StatusReport struct {
	Phase     string             `json:"phase" desc:"starting, running or stopping"`
	Since     time.Time          `json:"since" desc:"when the process began"`
	Instances *InstancesStatus   `json:"instances,omitempty" desc:"where there are several"`
	Reload    *ReloadStatus      `json:"reload,omitempty" desc:"where one was asked for"`
	Functions []FunctionOverview `json:"functions"`
	Advice    []string           `json:"advice,omitempty" desc:"what would serve the apps better, as measured"`
}

// InstancesStatus counts instances.
type InstancesStatus struct {
	Ready    int    `json:"ready"`
	Starting int    `json:"starting"`
	Draining int    `json:"draining"`
	Failing  string `json:"failing,omitempty" desc:"why they do not start"`
}

// FunctionOverview is a function's status, and what waits at its source.
type FunctionOverview struct {
	FunctionStatus
	// Backlog is nil where the source does not tell.
	Backlog *int64  `json:"backlog,omitempty" desc:"messages that are ready at the source and not handed out; missing where it does not tell"`
	Oldest  float64 `json:"oldest_seconds,omitempty" desc:"the age of the oldest of them; missing where there is none, or the source does not tell"`
}

// statusFresh and scrapeFresh are how old a backlog may be that is answered with.
const (
	statusFresh = 900 * time.Millisecond
	scrapeFresh = 10 * time.Second
)

func (d *Daemon) statusReport(ctx context.Context) StatusReport {
	r := StatusReport{Phase: string(d.inPhase()), Since: birth, Functions: []FunctionOverview{}}
	if c, ok := d.Instances(); ok {
		r.Instances = &InstancesStatus{c.Ready, c.Starting, c.Draining, c.Failing}
	}
	if reload := d.reloadStatus(); !reload.At.IsZero() {
		r.Reload = &reload
	}
	for _, s := range d.Status() {
		b := d.backlogs.of(ctx, d, s.Name, statusFresh)
		f := FunctionOverview{FunctionStatus: s}
		if b.ready >= 0 {
			f.Backlog = &b.ready
		}
		if !b.oldest.IsZero() {
			f.Oldest = max(time.Since(b.oldest).Seconds(), 0)
		}
		r.Functions = append(r.Functions, f)
	}
	apps := d.appStatuses()
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		if advice := apps[name].advice(); advice != "" {
			r.Advice = append(r.Advice, "app "+name+": "+advice)
		}
		for _, advice := range apps[name].blockedAdvice() {
			r.Advice = append(r.Advice, "app "+name+": "+advice)
		}
	}
	return r
}

// backlogs remembers what sources said: a source is not asked by each who looks.
// The zero value has asked nobody.
type backlogs struct {
	mu   sync.Mutex
	last map[string]heard
}

type heard struct {
	at     time.Time
	ready  int64 // negative: it does not tell
	oldest time.Time
	more   *triggers.BacklogMore
}

func (b *backlogs) of(ctx context.Context, d *Daemon, function string, fresh time.Duration) heard {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h, found := b.last[function]; found && time.Since(h.at) < fresh {
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, backlogLimit)
	defer cancel()
	h := heard{at: time.Now(), ready: -1}
	if got, err := d.Backlog(ctx, function); err == nil {
		h.ready, h.oldest, h.more = got.Ready, got.Oldest, got.More
	}
	if b.last == nil {
		b.last = make(map[string]heard)
	}
	b.last[function] = h
	return h
}
