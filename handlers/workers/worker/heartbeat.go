package worker

import (
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

// missedAfter is how long a worker may send nothing before it has missed an ALIVE, which is
// sent every second.
const missedAfter = 1500 * time.Millisecond

// processStart is the origin of times that are stored as numbers.
var processStart = time.Now()

// heartbeat is when a worker last sent something, and its state since then.
type heartbeat struct {
	last   atomic.Int64 // in ns since processStart
	silent atomic.Bool  // the worker's silence was reported

	// Used by CheckHeartbeat only: when the threads were read, their state, and since when they
	// are stuck.
	threadsRead, stuckSince time.Time
	threads                 process.Threads
}

// recordFrame records that the worker has sent something.
func (h *heartbeat) recordFrame(now time.Time) {
	h.last.Store(int64(now.Sub(processStart)))
	if h.silent.Load() {
		h.silent.Store(false)
	}
}

func (h *heartbeat) lastFrame() time.Time { return processStart.Add(time.Duration(h.last.Load())) }

// isOverdue reports whether the worker has just missed an ALIVE.
func (h *heartbeat) isOverdue(now time.Time) bool { return now.Sub(h.lastFrame()) > missedAfter }
