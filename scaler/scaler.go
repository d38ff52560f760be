// Package scaler turns what is measured into how many workers and instances
// there should be: signals in, wanted counts out.
//
// It holds the words for that so far. A daemon runs one instance, and a pool as
// many workers as its configuration says.
package scaler

import (
	"context"
	"time"
)

// Signals is what one decision is made from.
type Signals struct {
	// Backlog counts the messages that are ready at the source and not handed
	// out; negative where the source does not tell.
	Backlog int64
	// OldestAge is how long the oldest of them has waited; 0 if unknown.
	OldestAge time.Duration
	// ArrivalRate is how many messages a second come in.
	ArrivalRate float64
	// InFlight counts the messages that are being handled: not backlog.
	InFlight int64
	// Capacity is how many messages a second one instance was measured to
	// handle; 0 until something was measured.
	Capacity float64
}

// Provisioner sets the number of instances.
type Provisioner interface {
	// Count returns how many instances there are, those that are starting or
	// draining among them.
	Count(ctx context.Context) (int, error)
	// Set asks for n instances and returns at once. On the way down the idle go
	// first, and each is drained.
	Set(ctx context.Context, n int) error
}
