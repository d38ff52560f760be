package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errTimeout is the cause of a context that ended at the function's timeout.
var errTimeout = errors.New("the function's timeout")

// errLost is the cause of a context that ended since the message was lost.
var errLost = errors.New("the message was lost; it will be redelivered")

// attemptContext is the context of one attempt: it ends at its deadline, or with the
// context below it. A timer is only set when somebody waits for its end, since
// most functions are done before anybody does, and the timer would be a fifth of
// what drover costs them.
type attemptContext struct {
	context.Context // of all work
	deadline        time.Time

	mu     sync.Mutex
	hook   func()          // of OnInterrupt
	ended  bool            // by abort
	timed  context.Context // once somebody waits
	cancel context.CancelFunc
	cause  context.CancelCauseFunc
}

func (a *attemptContext) Deadline() (time.Time, bool) {
	if earlier, ok := a.Context.Deadline(); ok && earlier.Before(a.deadline) {
		return earlier, true
	}
	return a.deadline, true
}

// startTimer starts the timer, once, and returns the context that it ends.
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

// addBelow adds what add adds to the context below it: before the function has it, but
// the message may be lost at any time.
func (a *attemptContext) addBelow(add func(context.Context) context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Context = add(a.Context)
}

// abort ends the attempt before its time.
func (a *attemptContext) abort(why error) {
	a.startTimer()
	a.cause(why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended = true; a.hook != nil {
		go a.hook()
		a.hook = nil
	}
}

// OnInterrupt implements handlers.Interruptible.
func (a *attemptContext) OnInterrupt(f func()) (stop func() bool) {
	unhook := context.AfterFunc(a.Context, f)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hook = f; a.ended {
		go f()
		a.hook = nil
	}
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		whole := a.hook != nil
		a.hook = nil
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

// Value looks in the timed context once there is one, so that contexts made from
// this one end with it, and context.Cause tells the timeout.
func (a *attemptContext) Value(key any) any {
	a.mu.Lock()
	timed := a.timed
	a.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return a.Context.Value(key)
}

// renew gives the attempt a new deadline. Nobody else holds its context any more.
func (a *attemptContext) renew(deadline time.Time) {
	a.stopTimer()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deadline, a.hook = deadline, nil
	a.timed, a.cancel, a.cause = nil, nil, nil
}

// stopTimer frees the timer.
func (a *attemptContext) stopTimer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
		a.cause(nil)
	}
}
