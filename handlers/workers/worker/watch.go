package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// silence is the maximum time between frames of a worker that sends ALIVE every second.
	silence = 2500 * time.Millisecond
	// stuck is how long all threads of a worker may be inactive, with one of them in a kernel wait
	// that signals cannot interrupt, before the worker counts as hung. A slow disk takes less time.
	stuck = 10 * time.Second
)

// CancelExpired cancels the calls whose context has ended. It reports whether any calls are in
// flight, and returns the earliest deadline of the others; zero if none has one.
func (w *Worker) CancelExpired(now time.Time) (busy bool, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c == nil {
			continue
		}
		busy = true
		late := !c.Deadline.IsZero() && !now.Before(c.Deadline)
		switch {
		case c.cancelReported:
		case late || c.ctx.Err() != nil:
			w.cancelLocked(c)
		case !c.Deadline.IsZero() && (next.IsZero() || c.Deadline.Before(next)):
			next = c.Deadline
		}
	}
	return busy, next
}

// cancelLocked cancels a call in flight, and reports that to the call. The caller holds mu.
func (w *Worker) cancelLocked(c *Call) {
	c.cancelReported = true
	if w.HasCapability(protocol.CanCancel) {
		w.out.bytes = protocol.AppendCancel(w.out.bytes, c.ID)
		w.wake.raise()
	}
	c.passReply(w, Reply{Cancelled: true})
}

// Relieve lets the calls that wait behind long ones in a worker run in others, if one of those is
// idle.
func Relieve(workers []*Worker, now time.Time) {
	if slices.ContainsFunc(workers, func(w *Worker) bool { return w.IsUsable() && w.InFlight() < w.inForce.Load() }) {
		for _, w := range workers {
			revokeQueued(w, now)
		}
	}
}

// revokeQueued revokes the calls of a worker that wait behind those that run, if these take long. Async functions
// do not wait for each other.
func revokeQueued(w *Worker, now time.Time) {
	if !w.IsUsable() || w.InFlight() <= w.inForce.Load() || hasAsync(w.Ready) {
		return
	}
	w.mu.Lock()
	begun := w.answered // the calls that run have begun by then
	for _, c := range w.calls {
		if c != nil && begun.IsZero() {
			begun = c.submitted
		}
	}
	due := now.Sub(begun) >= longCall && now.Sub(w.revoked) >= longCall
	if due {
		w.revoked = now
	}
	w.mu.Unlock()
	if !due {
		return
	}
	w.extra.Store(0)
	w.group.cfg.RoomChanged()
	functions := make([]uint16, len(w.group.cfg.Functions))
	for i := range functions {
		functions[i] = uint16(i)
	}
	w.RevokeUnstarted(functions...)
}

// CheckBlock reports the current block if it has lasted long.
func (w *Worker) CheckBlock(now time.Time) {
	w.mu.Lock()
	b := w.lost.block
	due := b != nil && !b.logged && b.durationAt(now) >= longBlock
	if due {
		b.logged = true
		own := *b
		own.logged = false
		b = &own
	}
	w.mu.Unlock()
	if due && w.sharesLoop() {
		w.group.cfg.Blocked(blockReport(w, b, b.durationAt(now), false))
	}
}

// blockReport returns a report of a block of a worker.
func blockReport(w *Worker, b *openBlock, took time.Duration, over bool) BlockReport {
	return BlockReport{
		Block: Block{Function: w.group.functionName(b.Function), Message: b.Message, Place: b.Place, Time: took, Over: over},
		Log:   w.Log, Stack: b.Stack, Computes: b.IsComputing(), GIL: b.GIL, Language: w.Welcome.Language, Reported: b.logged,
	}
}

// AddLost adds time in which the worker's calls could not run.
func (w *Worker) AddLost(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost.total += d
}

// CheckHeartbeat logs a silent worker, and kills it if it is stopped or hung: its calls run
// elsewhere. A worker that computes or waits is neither, even if C code blocks the thread that
// sends ALIVE. since is when watching began, which bounds the silence. One goroutine calls it.
func (w *Worker) CheckHeartbeat(now, since time.Time) {
	select {
	case <-w.Loaded:
	default:
		return
	}
	h := &w.heartbeat
	last := h.lastFrame()
	if since.After(last) {
		last = since
	}
	quiet := now.Sub(last)
	if quiet < silence || w.group.cfg.Debugged || w.Ready == nil || !w.HasCapability(protocol.CanHeartbeat) || w.inFlight.Load() == 0 {
		return
	}
	known := h.silent.Swap(true)
	if known && now.Sub(h.threadsRead) < silence/5 {
		return
	}
	before := h.threads
	h.threadsRead, h.threads = now, w.Process.ThreadState()
	if !known {
		before = process.Threads{}
		level := slog.LevelWarn
		if h.threads.Runs {
			level = slog.LevelInfo // C code computes, or the worker gets no processor time
		}
		w.Log.Log(context.Background(), level, "a worker does not answer", "for", quiet.Round(100*time.Millisecond), "state", h.threads.String(), "in_flight", w.inFlight.Load())
	}
	if before.Known && h.threads != before || h.stuckSince.IsZero() || !known {
		h.stuckSince = now
	}
	switch {
	case h.threads.Stopped:
		w.KillHung(quiet, Stopped)
	case h.threads.Asleep && !h.threads.Runs && now.Sub(h.stuckSince) >= stuck:
		w.KillHung(quiet, "it hangs in the kernel")
	}
}

// Stopped describes why a stopped worker does not respond.
const Stopped = "it was stopped (SIGSTOP)"

// KillHung kills a worker that does not respond, and excuses its calls in flight.
func (w *Worker) KillHung(quiet time.Duration, how string) {
	w.AddLost(quiet)
	w.Log.Warn("a worker does not answer and is killed; its calls run again elsewhere", "how", how, "for", quiet.Round(100*time.Millisecond), "in_flight", w.inFlight.Load())
	w.Kill(process.CauseHung, fmt.Errorf("the worker did not answer for %v: %s", quiet.Round(100*time.Millisecond), how))
}

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
