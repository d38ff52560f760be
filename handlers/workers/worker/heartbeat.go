package worker

import (
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

// missedAfter is how long a worker may send nothing before it has missed an ALIVE, which it
// sends each second.
const missedAfter = 1500 * time.Millisecond

// birth is what times are measured from that are kept as a number.
var birth = time.Now()

// heartbeat is when a worker has sent something last, and what it does since.
type heartbeat struct {
	last   atomic.Int64 // in ns since birth
	silent atomic.Bool  // the worker has been reported for sending nothing

	// CheckHeartbeat's own: when the threads were read, their state, and since when they
	// do nothing.
	looked, stuckSince time.Time
	threads            process.Threads
}

// note notes that the worker has sent something.
func (h *heartbeat) note(now time.Time) {
	h.last.Store(int64(now.Sub(birth)))
	if h.silent.Load() {
		h.silent.Store(false)
	}
}

func (h *heartbeat) lastNoted() time.Time { return birth.Add(time.Duration(h.last.Load())) }

// missed reports whether the worker has just missed an ALIVE.
func (h *heartbeat) missed(now time.Time) bool { return now.Sub(h.lastNoted()) > missedAfter }
