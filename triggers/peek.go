package triggers

import "context"

// Peeker reads messages at a source without leasing them or counting a delivery. It is
// used by one goroutine.
type Peeker interface {
	// Peek returns up to max messages that follow those it returned before, in the
	// source's order; an empty result is the end. max is at least 1. Messages that other
	// receivers have leased may be among them. A message that no function can receive is
	// omitted, and logged. Neither Attempt nor Session of a Message is set.
	Peek(ctx context.Context, max int) ([]Message, error)

	// Close closes the connection, if the Peeker owns it.
	Close(ctx context.Context) error
}
