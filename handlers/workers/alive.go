package workers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file notices workers that do not answer, and times at which the daemon itself
// stood still.

const (
	// silence is how long a worker may send nothing that sends ALIVE each second.
	silence = 2500 * time.Millisecond
	// missed is how long it may send nothing before it has missed one.
	missed = 1500 * time.Millisecond
	// stuck is how long all of its threads may do nothing, one of them in the kernel
	// where no signal reaches it, before it is taken for hung. A slow disk is faster.
	stuck = 10 * time.Second
	// standstill is how much later than it is due the watch must be for the daemon to
	// have stood still: it was stopped, or the machine slept, or had no time for it.
	standstill = time.Second
	// catchUp is how long after that calls are not given up: their answers may wait to
	// be read.
	catchUp = time.Second
)

// sent notes that the worker has sent something.
func (w *worker) sent(now time.Time) {
	w.alive.Store(int64(now.Sub(birth)))
	if w.silent.Load() {
		w.silent.Store(false)
	}
}

// birth is what times are measured from that are kept as a number.
var birth = time.Now()

// listen reports a worker that is silent, and kills it if it is stopped or hung: its
// calls run elsewhere. One that computes or waits is neither, even if C code keeps the
// thread that sends ALIVE from running. Since bounds how long it was looked at.
func (w *worker) listen(now, since time.Time) {
	select {
	case <-w.loaded:
	default:
		return
	}
	last := birth.Add(time.Duration(w.alive.Load()))
	if since.After(last) {
		last = since
	}
	quiet := now.Sub(last)
	if quiet < silence || w.ready == nil || !w.can(protocol.CanHeartbeat) || w.inFlight.Load() == 0 {
		return
	}
	known := w.silent.Swap(true)
	if known && now.Sub(w.looked) < silence/5 {
		return
	}
	before := w.state
	w.looked, w.state = now, w.process.Threads()
	if !known {
		before = process.Threads{}
		level := slog.LevelWarn
		if w.state.Runs {
			level = slog.LevelInfo // C code computes, or there is no time on the processors
		}
		w.log.Log(context.Background(), level, "a worker does not answer", "for", quiet.Round(100*time.Millisecond), "state", w.state.String(), "in_flight", w.inFlight.Load())
	}
	if before.Known && w.state != before || w.stuckSince.IsZero() || !known {
		w.stuckSince = now
	}
	switch {
	case w.state.Stopped:
		w.hung(quiet, "it was stopped (SIGSTOP)")
	case w.state.Asleep && !w.state.Runs && now.Sub(w.stuckSince) >= stuck:
		w.hung(quiet, "it hangs in the kernel")
	}
}

// quiet reports whether the worker has just missed an ALIVE.
func (w *worker) quiet(now time.Time) bool {
	return w.ready != nil && w.can(protocol.CanHeartbeat) && now.Sub(birth.Add(time.Duration(w.alive.Load()))) > missed
}

// hung kills a worker, and excuses what is in flight in it.
func (w *worker) hung(quiet time.Duration, how string) {
	w.mu.Lock()
	w.stood += quiet
	w.mu.Unlock()
	w.log.Warn("a worker does not answer and is killed; its calls run again elsewhere", "how", how, "for", quiet.Round(100*time.Millisecond), "in_flight", w.inFlight.Load())
	w.kill(process.CauseHung, fmt.Errorf("the worker did not answer for %v: %s", quiet.Round(100*time.Millisecond), how))
}

// stoodStill takes a time at which the daemon stood still: no call is late for that,
// and no worker silent.
func (p *Pool) stoodStill(gap time.Duration) {
	p.log.Warn("the daemon stood still: it was stopped, or the machine slept or had no time for it; no call is charged for that", "for", gap.Round(100*time.Millisecond))
	for _, w := range p.everyone() {
		w.mu.Lock()
		w.stood += gap
		w.mu.Unlock()
	}
}
