package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// silence is how long a worker that sends ALIVE every second may send nothing.
	silence = 2500 * time.Millisecond
	// stuck is how long all of its threads may do nothing, with one of them in a kernel wait that
	// signals cannot interrupt, before it counts as hung. A slow disk takes less time.
	stuck = 10 * time.Second
)

// CancelExpired cancels the calls whose context has ended. It reports whether any calls are in
// flight.
func (w *Worker) CancelExpired(now time.Time) (busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c == nil {
			continue
		}
		busy = true
		late := !c.Deadline.IsZero() && !now.Before(c.Deadline)
		if c.cancelReported || !late && c.ctx.Err() == nil {
			continue
		}
		c.cancelReported = true
		if w.HasCapability(protocol.CanCancel) {
			w.out.bytes = protocol.AppendCancel(w.out.bytes, c.ID)
			w.wake.raise()
		}
		c.passReply(w, Reply{Cancelled: true})
	}
	return busy
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
	if quiet < silence || w.Ready == nil || !w.HasCapability(protocol.CanHeartbeat) || w.inFlight.Load() == 0 {
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
