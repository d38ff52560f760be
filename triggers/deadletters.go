package triggers

import (
	"context"
	"errors"
	"time"
)

// DeadLetters are the rejected messages of one source, for an operator who lists,
// replays or removes them. Browse is used by one goroutine; Replay and Remove are safe for
// concurrent use.
type DeadLetters interface {
	// Browse returns up to max dead letters, oldest first, that follow those it returned
	// before, and removes none. max is at least 1; an empty result is the end. Messages
	// dead-lettered after the first call are omitted if the source can distinguish them,
	// above all those that were replayed and failed again.
	Browse(ctx context.Context, max int) ([]DeadLetter, error)

	// Replay sends a dead letter to where it came from, as a message without failures,
	// and then removes it. It returns nil if the dead letter no longer exists.
	//
	// tried is when an earlier run began to replay this one without recording its end;
	// zero if none did. Replay then checks whether the message was sent already, and
	// only removes it if so. The error wraps ErrDoubtful if that cannot be determined,
	// and ErrShared if other receivers would get the message, too.
	Replay(ctx context.Context, d DeadLetter, tried time.Time) error

	// Remove deletes a dead letter. It returns nil if it no longer exists.
	Remove(ctx context.Context, d DeadLetter) error

	// Close releases the leases that Browse and Replay took.
	Close(ctx context.Context) error
}

// DeadLetter is a rejected message.
type DeadLetter struct {
	// ID identifies it among the dead letters of its source.
	ID string
	// Message is the original; its Attempt is the last one, 0 if unknown.
	Message Message
	// Reason is one line: why it was rejected. Detail is the long form, such as a
	// traceback. Either may be empty if drover did not reject it.
	Reason, Detail string
	// Function rejected it; empty if unknown.
	Function string
	// Died is when it was rejected; zero if the source does not report it.
	Died time.Time
	// Own is private to the source, for Replay and Remove.
	Own any
}

// ErrDoubtful is returned by Replay if an earlier run may have replayed a dead letter, and
// the source cannot show whether it did.
var ErrDoubtful = errors.New("an earlier replay was killed in the middle, and may have sent it back")

// ErrShared is returned by Replay if other receivers, which had the message already, would
// get it again.
var ErrShared = errors.New("others receive the messages sent there, too")
