package dispatch

import (
	"fmt"
	"sync/atomic"

	"github.com/drover-run/drover/handlers"
)

// Epoch is the time between two changes of the settings of a worker pool. A call belongs to the
// epoch in which it started. The owner of the settings makes a new epoch for each change, and
// decides whether the settings caused a failure. Its methods may be called from many goroutines.
type Epoch struct {
	number int
	passed []atomic.Int64 // calls that started and succeeded in it, by the index of their function
	failed func(FailedCall) (release bool)
}

// FailedCall is a call that failed, as reported to the owner of an epoch.
type FailedCall struct {
	Epoch     int // the number of the epoch
	PoolIndex int // of the function in the pool
	Function  string
	Message   string // the message's ID
	Attempt   int
	Final     bool // it is not retried
	Err       error
}

// NewEpoch makes an epoch for a pool with that many functions. failed is called for each
// call of the epoch that fails, from many goroutines. If it returns true, the call uses no
// attempt.
func NewEpoch(number, functions int, failed func(FailedCall) (release bool)) *Epoch {
	return &Epoch{number: number, passed: make([]atomic.Int64, functions), failed: failed}
}

// PassedCalls counts the calls of the function at an index that succeeded.
func (e *Epoch) PassedCalls(index int) int64 { return e.passed[index].Load() }

// undoneError is a failure under settings that are reverted. It uses no attempt.
type undoneError struct{ how error }

func (e *undoneError) Error() string {
	return fmt.Sprintf("failed under settings that drover tried, and is released: %v", e.how)
}

// Unwrap hides the failure itself: the function did not cause it.
func (e *undoneError) Unwrap() error { return handlers.ErrNotTried }
