package natsjs

import (
	"sync/atomic"
	"time"
)

// idling lets the keeper wake rarely while it has nothing to do, so that a daemon with a thousand
// idle functions uses almost no CPU.
type idling struct {
	idle      atomic.Bool
	idleEnded chan struct{} // wakes the keeper
	// clock is the time of the keeper's last check. It is precise enough for the time of the next
	// renewal, and cheaper than reading the clock for each message.
	clock atomic.Int64
}

// leaveIdle ends the idle mode of the keeper. It is called for each message.
func (i *idling) leaveIdle() {
	if i.idle.Load() && i.idle.CompareAndSwap(true, false) {
		i.clock.Store(time.Now().UnixNano())
		signal(i.idleEnded)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
