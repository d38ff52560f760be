package dispatch

import (
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
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

// setPaused pauses a share until a time, or without an end if until is zero, or resumes it.
func (p *pauseSwitch) setPaused(share *handlers.Share, paused bool, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.paused, p.until = paused, until
	if !paused {
		share.Resume()
		return
	}
	share.Pause()
	if !until.IsZero() {
		p.timer = time.AfterFunc(time.Until(until), func() { p.setPaused(share, false, time.Time{}) })
	}
}
