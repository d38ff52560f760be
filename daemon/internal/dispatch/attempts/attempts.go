// Package attempts has the context of one attempt to handle a message: its timeout, and the reasons
// for which it ends before.
package attempts

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrTimeout is the cause of a context that ended at the function's timeout.
var ErrTimeout = errors.New("the function's timeout")

// ErrLost is the cause of a context that ended because the message was lost.
var ErrLost = errors.New("the message was lost; it will be redelivered")

// Attempt is the context of one attempt. It ends at its deadline, or with its parent. The
// timer is started only when the handler waits for Done: most functions return before that, and a
// timer would be a fifth of drover's cost per message.
type Attempt struct {
	context.Context // the parent
	deadline        time.Time

	mu          sync.Mutex
	onInterrupt func()          // set by OnInterrupt
	ended       bool            // set by CancelWith
	timed       context.Context // set once Done was called
	cancel      context.CancelFunc
	cause       context.CancelCauseFunc
}

// Begin initializes a zero Attempt. It is called once.
func (a *Attempt) Begin(parent context.Context, deadline time.Time) {
	a.Context, a.deadline = parent, deadline
}

// SetDeadline changes the deadline. It must be called before a handler has the context.
func (a *Attempt) SetDeadline(deadline time.Time) { a.deadline = deadline }

// Deadline implements context.Context.
func (a *Attempt) Deadline() (time.Time, bool) {
	if earlier, ok := a.Context.Deadline(); ok && earlier.Before(a.deadline) {
		return earlier, true
	}
	return a.deadline, true
}

// startTimer starts the timer, once, and returns the context that the timer ends.
func (a *Attempt) startTimer() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timed == nil {
		var inner context.Context
		inner, a.cause = context.WithCancelCause(a.Context)
		a.timed, a.cancel = context.WithDeadlineCause(inner, a.deadline, ErrTimeout)
	}
	return a.timed
}

// WrapParent replaces the parent by add(parent). It must be called before the function has the
// context; the lease may be lost meanwhile.
func (a *Attempt) WrapParent(add func(context.Context) context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Context = add(a.Context)
}

// CancelWith ends the attempt before its deadline, with a cause.
func (a *Attempt) CancelWith(why error) {
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
func (a *Attempt) OnInterrupt(f func()) (stop func() bool) {
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

// Done implements context.Context.
func (a *Attempt) Done() <-chan struct{} { return a.startTimer().Done() }

// Err implements context.Context.
func (a *Attempt) Err() error {
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
// context.Cause returns ErrTimeout.
func (a *Attempt) Value(key any) any {
	a.mu.Lock()
	timed := a.timed
	a.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return a.Context.Value(key)
}

// ResetDeadline sets a new deadline for the attempt. No other goroutine may still use its context.
func (a *Attempt) ResetDeadline(deadline time.Time) {
	a.StopTimer()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deadline, a.onInterrupt = deadline, nil
	a.timed, a.cancel, a.cause = nil, nil, nil
}

// StopTimer releases the timer.
func (a *Attempt) StopTimer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
		a.cause(nil)
	}
}
