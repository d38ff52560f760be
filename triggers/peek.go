package triggers

import "context"

// Peeker shows the messages that wait at a source, and takes them from nobody: no loan
// is made, and no delivery counted. It is used by one goroutine.
type Peeker interface {
	// Peek returns up to max messages that follow those it returned before, in the
	// source's order; none is the end. max is at least 1. Some that others have on loan may be
	// among them. What no function could be given is left out, and logged.
	// Neither Attempt nor the Session of a Message is set.
	Peek(ctx context.Context, max int) ([]Message, error)

	// Close ends the connection, if it is the Peeker's own.
	Close(ctx context.Context) error
}
