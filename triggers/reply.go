package triggers

import (
	"context"
	"io"
	"time"
)

// Replier is a Lease whose sender waits for the function's result.
type Replier interface {
	// Reply passes the result to the sender. It is called at most once, before the delivery is
	// settled as Done. body is nil if the function returned nothing. The error means that the
	// result is not a valid reply. There is no error if the sender has gone.
	Reply(ctx context.Context, body []byte, properties Properties) error
}

// StreamReplier is a Replier that can pass on a result in parts.
type StreamReplier interface {
	Replier

	// ReplyStream begins a reply with its properties. It is called at most once, and Reply is not
	// called then. Each Write passes on a part, and blocks while the sender is slow; its error
	// means that the sender has gone. Close ends the reply. A delivery that is settled before that
	// ends the reply in a way that the sender notices.
	ReplyStream(ctx context.Context, properties Properties) (io.WriteCloser, error)
}

// Replier returns the destination of the message's result; nil if its sender does not wait for one.
// d may be nil.
func (d *Delivery) Replier() Replier {
	if d == nil {
		return nil
	}
	r, _ := d.lease.(Replier)
	return r
}

// Suspender is a Trigger whose senders wait for replies. Its caller reports when it stops
// receiving.
type Suspender interface {
	// Suspend sets why receiving has stopped, and until when; a zero time means indefinitely. An
	// empty reason ends that. It may be called from any goroutine, and does not block.
	Suspend(reason string, until time.Time)
}

// LocalBacklog is a Trigger whose messages wait in this process. Other processes cannot request
// its backlog.
type LocalBacklog interface {
	// WaitingCount returns how many messages wait.
	WaitingCount() int64
}

// Responder is a Trigger that counts the responses to its senders, also to those whose messages it
// refused.
type Responder interface {
	// ResponseCounts returns the number of responses, by status.
	ResponseCounts() map[string]int64
}
