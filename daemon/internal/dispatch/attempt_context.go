package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errTimeout is the cause of a context that ended at the function's timeout.
var errTimeout = errors.New("the function's timeout")

// errLost is the cause of a context that ended because the message was lost.
var errLost = errors.New("the message was lost; it will be redelivered")

// attemptContext is the context of one attempt. It ends at its deadline, or with its parent. The
// timer is started only when the handler waits for Done: most functions return before that, and a
// timer would be a fifth of drover's cost per message.
type attemptContext struct {
	context.Context // the parent
	deadline        time.Time

	mu          sync.Mutex
	onInterrupt func()          // set by OnInterrupt
	ended       bool            // set by cancelWith
	timed       context.Context // set once Done was called
	cancel      context.CancelFunc
	cause       context.CancelCauseFunc
}

func (a *attemptContext) Deadline() (time.Time, bool) {
	if earlier, ok := a.Context.Deadline(); ok && earlier.Before(a.deadline) {
		return earlier, true
	}
	return a.deadline, true
}

// startTimer starts the timer, once, and returns the context that the timer ends.
func (a *attemptContext) startTimer() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timed == nil {
		var inner context.Context
		inner, a.cause = context.WithCancelCause(a.Context)
		a.timed, a.cancel = context.WithDeadlineCause(inner, a.deadline, errTimeout)
	}
	return a.timed
}

// wrapParent replaces the parent by add(parent). It must be called before the function has the
// context; the lease may be lost meanwhile.
func (a *attemptContext) wrapParent(add func(context.Context) context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Context = add(a.Context)
}

// cancelWith ends the attempt before its deadline, with a cause.
func (a *attemptContext) cancelWith(why error) {
	a.startTimer()
	a.cause(why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended = true; a.onInterrupt != nil {
		go a.onInterrupt()
		a.onInterrupt = nil
	}
}

// OnInterrupt implements handlers.Interruptible.
func (a *attemptContext) OnInterrupt(f func()) (stop func() bool) {
	unhook := context.AfterFunc(a.Context, f)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.onInterrupt = f; a.ended {
		go f()
		a.onInterrupt = nil
	}
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		whole := a.onInterrupt != nil
		a.onInterrupt = nil
		return unhook() && whole
	}
}

func (a *attemptContext) Done() <-chan struct{} { return a.startTimer().Done() }

func (a *attemptContext) Err() error {
	a.mu.Lock()
	timed := a.timed
	a.mu.Unlock()
	if timed != nil {
		return timed.Err()
	}
	if err := a.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(a.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value asks the timed context once it exists. So contexts derived from this one end with it, and
// context.Cause returns errTimeout.
func (a *attemptContext) Value(key any) any {
	a.mu.Lock()
	timed := a.timed
	a.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return a.Context.Value(key)
}

// resetDeadline gives the attempt a new deadline. No other goroutine may use its context any more.
func (a *attemptContext) resetDeadline(deadline time.Time) {
	a.stopTimer()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deadline, a.onInterrupt = deadline, nil
	a.timed, a.cancel, a.cause = nil, nil, nil
}

// stopTimer releases the timer.
func (a *attemptContext) stopTimer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
		a.cause(nil)
	}
}
