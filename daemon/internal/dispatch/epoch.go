package dispatch

import (
	"fmt"
	"sync/atomic"

	"github.com/drover-run/drover/handlers"
)

// Epoch is the time between two changes of the settings of the pool of workers that runs
// a function. A call belongs to the epoch in which it was handed out. Who changes the
// settings makes a new epoch for each change, and decides whether settings are to blame
// for a failure. Its methods may be called from many goroutines.
type Epoch struct {
	number int
	passed []atomic.Int64 // calls that were handed out in it and passed in it, by place
	failed func(FailedCall) (release bool)
}

// FailedCall is a call that failed, as reported to the owner of an epoch.
type FailedCall struct {
	Epoch    int // its number
	Place    int // of the function in the pool
	Function string
	Message  string // the ID
	Attempt  int
	Final    bool // it is not tried again
	Err      error
}

// NewEpoch makes an epoch for a pool with so many functions. failed is called for each call of
// the epoch that fails, from many goroutines; if it returns true, no attempt is charged.
func NewEpoch(number, places int, failed func(FailedCall) (release bool)) *Epoch {
	return &Epoch{number: number, passed: make([]atomic.Int64, places), failed: failed}
}

// PassedAt counts the calls of the function at a place that passed.
func (e *Epoch) PassedAt(place int) int64 { return e.passed[place].Load() }

// undoneError is a failure under settings that are undone: no attempt is charged for it.
type undoneError struct{ how error }

func (e *undoneError) Error() string {
	return fmt.Sprintf("failed under settings that drover tried, and is released: %v", e.how)
}

// Unwrap hides the failure itself: the function is not to blame, whatever it was.
func (e *undoneError) Unwrap() error { return handlers.ErrNotTried }
