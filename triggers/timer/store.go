package timer

import (
	"context"
	"errors"
	"time"
)

// Store keeps the state of one timer, and leases the timer to one instance at a time. Several
// instances have a Store each, of the same state. AcquireLease is called by one goroutine at a
// time, ReadState by any.
type Store interface {
	// ReadState returns the state, and whether an instance has leased the timer. A timer that
	// was never seen has the zero State. A store that shows no leased state returns the zero
	// State and true.
	ReadState(ctx context.Context) (s State, leased bool, err error)

	// AcquireLease leases the timer if isDue returns true for its state. Otherwise it returns
	// the state and a nil Lease. The error is ErrLeased if another instance has the lease.
	AcquireLease(ctx context.Context, isDue func(State) bool) (State, Lease, error)

	// LeaseTerm is how long a lease lasts without a renewal; 0 is until the process ends.
	LeaseTerm() time.Duration
}

// Lease is the right to run a timer. Its methods are called one at a time.
type Lease interface {
	// RenewLease extends the lease by the term. The error wraps lease.ErrLost if another
	// instance has the timer.
	RenewLease(ctx context.Context) error

	// EndLease stores the state and ends the lease, in one step. After an error that does not
	// wrap lease.ErrLost the lease is as it was, and EndLease may be called again.
	EndLease(ctx context.Context, s State) error
}

// ErrLeased is returned by AcquireLease if another instance has the lease.
var ErrLeased = errors.New("another instance has the timer")
