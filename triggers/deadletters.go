package triggers

import (
	"context"
	"errors"
	"time"
)

// DeadLetters are the rejected messages of one source, for an operator who looks
// at them, sends them back, or throws them away. Browse is used by one goroutine;
// Replay and Remove by many, at the same time.
type DeadLetters interface {
	// Browse returns up to max dead letters, the oldest first, that follow those
	// it returned before, and removes none. max is at least 1; none is the end.
	// What died after the first call is not among them, as far as the source can
	// tell: above all, what was replayed meanwhile and failed again.
	Browse(ctx context.Context, max int) ([]DeadLetter, error)

	// Replay sends one back to where it came from, as a message that never
	// failed, and then removes it. One that is gone is no error: somebody else
	// has replayed it.
	//
	// tried is when an earlier run began to replay this one, and never said that
	// it did; zero if none did. Replay then finds out whether the message is back
	// already, and only removes it if so. The error wraps ErrDoubtful where that
	// cannot be told, and ErrShared where others would get the message, too.
	Replay(ctx context.Context, d DeadLetter, tried time.Time) error

	// Remove throws one away. One that is gone is no error.
	Remove(ctx context.Context, d DeadLetter) error

	// Close gives back what Browse and Replay have borrowed.
	Close(ctx context.Context) error
}

// DeadLetter is a rejected message.
type DeadLetter struct {
	// ID names it among the dead letters of its source.
	ID string
	// Message is as it was; its Attempt is the last one. Zero is not known.
	Message Message
	// Reason says in a line why it died; Detail is the long form, such as a
	// traceback. Either may be empty where something else than drover gave it up.
	Reason, Detail string
	// Function rejected it; empty if that is not known.
	Function string
	// Died is when; zero if the source does not tell.
	Died time.Time
	// Own is the source's, for Replay and Remove.
	Own any
}

// ErrDoubtful says that an earlier run may have replayed a dead letter, and that
// the source does not tell.
var ErrDoubtful = errors.New("an earlier replay was killed in the middle, and may have sent it back")

// ErrShared says that a replay would reach others than the function: who has had
// the message already would get it again.
var ErrShared = errors.New("others receive what is sent there, too")
