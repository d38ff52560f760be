package dispatch

import (
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// pauseSwitch holds whether a function is paused. The zero value is not paused. Its methods may be
// called from many goroutines.
type pauseSwitch struct {
	mu     sync.Mutex
	paused bool
	until  time.Time // zero: no end
	timer  *time.Timer
}

func (p *pauseSwitch) pauseState() (paused bool, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused, p.until
}

// setPaused pauses a share and its source until a time, or without an end if until is zero, or resumes it.
func (p *pauseSwitch) setPaused(share *handlers.Share, source triggers.Trigger, paused bool, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.paused, p.until = paused, until
	if !paused {
		share.Resume()
		suspendTrigger(source, "", until)
		return
	}
	share.Pause()
	suspendTrigger(source, "paused", until)
	if !until.IsZero() {
		p.timer = time.AfterFunc(time.Until(until), func() { p.setPaused(share, source, false, time.Time{}) })
	}
}

// suspendTrigger reports to a trigger whose senders wait why nothing is received. An empty reason
// ends that.
func suspendTrigger(t triggers.Trigger, reason string, until time.Time) {
	if s, ok := t.(triggers.Suspender); ok {
		s.Suspend(reason, until)
	}
}
