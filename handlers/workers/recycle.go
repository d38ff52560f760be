package workers

import (
	"math/rand/v2"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
)

// Recycle says when a worker is replaced though nothing is wrong with it, for code
// that leaks. Zero values are never. Of each limit a worker is given between nine
// tenths and the whole, by chance, so that workers that started together do not end
// together. One is replaced at a time, and takes messages until the one in its place
// has loaded the code; so it may do a little more than its limit says.
type Recycle struct {
	// MaxInvocations is not obeyed before a worker has lived 0.5 s, and ten times as
	// long as one takes to load the code: recycling is to cost a tenth at most.
	MaxInvocations int
	// MaxMemory is of anonymous memory, in bytes: what it has read of files is not
	// its own, and the kernel takes that back when it needs to.
	MaxMemory uint64
	MaxAge    time.Duration
	// MaxIdle is how long it may have nothing to do, once it had something.
	MaxIdle time.Duration
}

const (
	// jitter is the part of a limit that is left to chance.
	jitter = 0.1
	// minLives is how many times as long as one takes to load the code a worker
	// lives at least, whatever it has done.
	minLives = 10
	// minLife is the same where that is nothing, since it is forked: to fork one, and
	// to end one, is about 10 ms of processor time.
	minLife = 500 * time.Millisecond
	// recycleEvery is how often age, memory and idleness are looked at.
	recycleEvery = time.Second
)

// timed reports whether workers are to be looked at every now and then.
func (r Recycle) timed() bool { return r.MaxMemory > 0 || r.MaxAge > 0 || r.MaxIdle > 0 }

// wear is what a worker has done, against the limits.
type wear struct {
	share float64 // of each limit

	// Guarded by the worker's mu.
	taken   int // invocations
	checkAt int // so many are to be looked at; 0 is never

	// The reconciler's.
	readied  time.Time
	looked   int // invocations at the last look
	quiet    time.Time
	measured time.Time // when its memory was
}

func newWear(r Recycle) wear {
	w := wear{share: 1 - jitter*rand.Float64()}
	if limit := w.limit(r); limit > 0 {
		w.checkAt = max(limit/2, 1)
	}
	return w
}

// limit is how many invocations it is given.
func (w *wear) limit(r Recycle) int {
	if r.MaxInvocations == 0 {
		return 0
	}
	return max(int(w.share*float64(r.MaxInvocations)), 1)
}

// take counts an invocation; it reports whether the reconciler is to look.
func (w *wear) take() bool {
	w.taken++
	if w.checkAt == 0 || w.taken < w.checkAt {
		return false
	}
	w.checkAt = 0 // until the reconciler sets it anew
	return true
}

// worn says which of the limits a worker has reached; "" if none.
func (r *reconciler) worn(w *worker, now time.Time) process.Cause {
	limits := r.pool.cfg.Recycle
	scaled := func(limit time.Duration) time.Duration { return time.Duration(w.wear.share * float64(limit)) }
	w.mu.Lock()
	taken := w.wear.taken
	if limits.MaxInvocations > 0 {
		// Its replacement is to be ready when it comes to the limit.
		limit := w.wear.limit(limits)
		left := limit - taken
		ahead := min(float64(limit)/2, float64(taken)*float64(r.startUp)/float64(max(now.Sub(w.wear.readied), 1)))
		old := w.wear.readied.Add(max(minLives*r.startUp, minLife))
		switch {
		case float64(left) > ahead:
			w.wear.checkAt = max(taken+1, limit-int(ahead))
		case now.Before(old):
			if r.again.IsZero() || old.Before(r.again) {
				r.again = old
			}
		default:
			w.mu.Unlock()
			return process.CauseInvocations
		}
	}
	w.mu.Unlock()
	if taken != w.wear.looked || w.inFlight.Load() > 0 {
		w.wear.looked, w.wear.quiet = taken, now
	}
	switch {
	case w.unwanted.Load():
		return process.CauseBlocked
	case limits.MaxAge > 0 && now.Sub(w.wear.readied) >= scaled(limits.MaxAge):
		return process.CauseAge
	case limits.MaxIdle > 0 && taken > 0 && now.Sub(w.wear.quiet) >= scaled(limits.MaxIdle):
		return process.CauseIdle
	case limits.MaxMemory > 0 && now.Sub(w.wear.measured) >= recycleEvery:
		w.wear.measured = now
		if float64(process.AnonymousMemory(w.process.PID)) >= w.wear.share*float64(limits.MaxMemory) {
			return process.CauseAnonymous
		}
	}
	return ""
}

// recycle sees to the worker that is being replaced: it chooses one, and has it
// take no more when the others are as many as are wanted. It returns how many
// workers there are to be.
func (r *reconciler) recycle(workers []*worker, wanted int) int {
	now := time.Now()
	usable, worn, why := 0, (*worker)(nil), process.Cause("")
	stays := false
	for _, w := range workers {
		if !w.usable() {
			continue
		}
		if w == r.old {
			stays = true
			continue
		}
		usable++
		if r.old == nil && worn == nil {
			if why = r.worn(w, now); why != "" {
				worn = w
			}
		}
	}
	if !stays {
		r.old = nil
	}
	if worn != nil {
		usable--
		r.old, r.oldBy = worn, why
	}
	if r.old == nil {
		return wanted
	}
	if usable < wanted {
		return wanted + 1
	}
	r.replace(r.old, r.oldBy)
	r.old = nil
	return wanted
}
