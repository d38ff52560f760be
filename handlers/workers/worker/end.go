package worker

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// outputGrace is how long a worker may take to end after it closed its socket.
	outputGrace = time.Second
	// killLimit bounds the wait for the end of a killed worker. A worker that hangs in the
	// kernel, for example because of a missing disk, does not end, but no longer runs its
	// code.
	killLimit = 2 * time.Second
)

// run reads the worker's frames until the worker has ended, and then ends its calls in flight.
func (r *reader) run() {
	err := r.readFrames()
	w := r.Worker
	silent := w.Ready != nil && w.HasCapability(protocol.CanHeartbeat) && w.heartbeat.isOverdue(time.Now())
	w.mu.Lock()
	w.dead = true
	lost := make([]*Call, 0, len(w.calls))
	for _, c := range w.calls {
		if c != nil {
			lost = append(lost, c)
		}
	}
	why, whose, block := w.why, w.whose, w.lost.block
	var culprit *Call
	var blames error
	if now := time.Now(); block != nil {
		w.lost.endBlock(block, w.calls, now)
		for _, c := range lost {
			if block.causedBy(c) && why != nil {
				culprit, blames = c, block.blameError(why, now)
			}
		}
		w.lost.block = nil
	}
	w.calls = nil
	w.mu.Unlock()
	if block != nil {
		r.blockEnded(block, time.Now())
	}
	r.awaitEnd(err, why != nil)
	switch {
	case why != nil:
		w.Reason, w.Cause = why, whose
	case errors.Is(err, protocol.ErrProtocol):
		w.Reason, w.Cause = fmt.Errorf("the worker process was killed: %w", err), process.CauseProtocol
	default:
		var state string
		state, w.Cause = w.Process.HowEnded()
		w.Reason = &handlers.Failure{Summary: "the worker process died: " + state, Detail: w.Process.LastLines()}
	}
	w.LostCalls = len(lost)
	w.inFlight.Store(0)
	w.group.removeWorker(w)
	close(w.Gone)
	loss := Loss{
		Err:     w.Reason,
		Worker:  w,
		Again:   why != nil && w.Cause != process.CauseHung || w.Cause == process.CauseReaper,
		Alone:   len(lost) == 1,
		Known:   culprit != nil,
		Suspect: why != nil && w.Cause == process.CauseTimeout && culprit == nil && (block != nil || silent),
		Outside: w.Cause == process.CauseMemory || w.Cause == process.CauseOOM || w.Cause == process.CauseHung,
	}
	for _, c := range lost {
		own := loss
		if c == culprit {
			own.Err, own.Culprit = blames, true
		}
		c.passLastReply(w, Reply{Lost: &own})
	}
	w.group.cfg.Changed()
}

// awaitEnd closes the socket, kills the process, and waits until it has ended. A worker with a
// broken socket is useless, even if it still runs.
func (r *reader) awaitEnd(err error, killed bool) {
	if errors.Is(err, protocol.ErrProtocol) {
		r.Log.Error("worker killed", "error", err)
	}
	_ = r.Process.Conn.Close() // it is already broken, or about to be
	if !killed && !errors.Is(err, protocol.ErrProtocol) {
		// It closed its socket, usually because it is ending by itself.
		select {
		case <-r.Process.Ended():
		case <-time.After(outputGrace):
		}
	}
	r.Process.Signal(syscall.SIGKILL)
	var limit <-chan time.Time
	if killed {
		limit = time.After(killLimit)
	}
	select {
	case <-r.Process.Ended():
	case <-limit:
		r.Log.Error("a worker was killed and does not end: it hangs in the kernel; its calls run elsewhere")
	}
}
