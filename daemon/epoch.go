package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// epoch is the time between two changes of the settings of the pool of workers that runs
// a function. A call belongs to the epoch in which it was handed out. Who changes the
// settings makes a new epoch for each change, and decides whether settings are to blame
// for a failure. Its methods may be called from many goroutines.
type epoch struct {
	number int
	passed []atomic.Int64                  // calls that were handed out in it and passed in it, by place
	failed func(failedCall) (release bool) // called for each failure; true: no attempt is charged
}

// failedCall is a call that failed, as reported to the owner of an epoch.
type failedCall struct {
	epoch    int // its number
	place    int // of the function in the pool
	function string
	message  string // the ID
	attempt  int
	final    bool // it is not tried again
	err      error
}

func newEpoch(number, places int, failed func(failedCall) (release bool)) *epoch {
	return &epoch{number: number, passed: make([]atomic.Int64, places), failed: failed}
}

// passedAt counts the calls of the function at a place that passed.
func (e *epoch) passedAt(place int) int64 { return e.passed[place].Load() }

// judgeEnd records how a call ended, and returns the error for judge: one that is
// handlers.ErrNotTried where the settings are to blame.
func (e *epoch) judgeEnd(x *execution, err error) error {
	f := x.f
	var loadError *handlers.LoadError
	switch {
	case err == nil:
		if f.epochs.Load() == e {
			e.passed[f.place].Add(1)
		}
		return nil
	case errors.Is(err, handlers.ErrNotTried), errors.Is(err, triggers.ErrTooLarge), errors.As(err, &loadError), f.working.Err() != nil:
		return err // the function is not to blame for it
	case e.failed(x.asFailedCall(err)):
		return &undoneError{err}
	}
	return err
}

func (x *execution) asFailedCall(err error) failedCall {
	m := x.message
	return failedCall{
		epoch: x.epoch.number, place: x.f.place, function: x.f.name, message: m.ID, attempt: m.Attempt,
		final: handlers.Rejected(err) || m.Attempt >= x.f.retry.MaxAttempts, err: err,
	}
}

// reportWorkerDied reports that a worker died under a call, to the owner of the epoch in
// which the call was handed out. The pool then runs the call again. ctx is the context
// that the handler was given; any other is ignored.
func reportWorkerDied(ctx context.Context, how error) {
	if x, is := ctx.(*execution); is && x.epoch != nil {
		x.epoch.failed(x.asFailedCall(how))
	}
}

// undoneError is a failure under settings that are undone: no attempt is charged for it.
type undoneError struct{ how error }

func (e *undoneError) Error() string {
	return fmt.Sprintf("failed under settings that drover tried, and is released: %v", e.how)
}

// Unwrap hides the failure itself: the function is not to blame, whatever it was.
func (e *undoneError) Unwrap() error { return handlers.ErrNotTried }
