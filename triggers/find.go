package triggers

import (
	"context"
	"errors"
	"time"
)

// Finder is a Trigger that can locate one of its messages without receiving it. Find
// serves operators, and may send requests to the source.
type Finder interface {
	// Find locates a message by its ID. The error is ErrNotFound if the message does not
	// exist or the source does not show it, for example because another receiver has
	// leased it. It is ErrUnsearchable if the source cannot be searched.
	Find(ctx context.Context, id string) (Found, error)
}

// Found is the location of a message.
type Found struct {
	Place Place
	// Ahead counts the messages that are delivered before it. If the source does not
	// distinguish them, those already delivered are included. Negative is unknown.
	Ahead int64
	// Doubtful is set if the source does not report whether a message that it shows as
	// ready is leased.
	Doubtful bool
	// Failures counts the failures that the function caused; negative is unknown.
	Failures int
	Enqueued time.Time // zero is unknown
	Due      time.Time // the earliest delivery; zero is now or unknown
	Note     string    // further information of the source; may be empty
}

// Place is a state of a message at its source.
type Place string

// The places.
const (
	PlaceReady  Place = "ready"  // it can be received
	PlaceLater  Place = "later"  // it is hidden until a time
	PlaceHeld   Place = "held"   // this trigger has leased it: prefetched, in flight, or until its retry
	PlaceLeased Place = "leased" // it was delivered before: another receiver has it, or it waits for its retry
	PlaceDone   Place = "done"   // it was settled, and the source keeps it for other consumers
	PlaceSpent  Place = "spent"  // the source has delivered it as often as it may, and will not again
)

// Limited is a Trigger whose source may limit the attempts of a message.
type Limited interface {
	// AttemptLimit returns the limit; 0 means no limit. It sends no request.
	AttemptLimit() int
}

// Scheduled is a Trigger whose messages are due at known times.
type Scheduled interface {
	// NextDue returns when the next message is due; known is false if that is unknown, or if a
	// message is in flight.
	NextDue() (at time.Time, known bool)
}

// Discarder is a Trigger without dead letters: rejected messages are dropped.
type Discarder interface {
	// DiscardsRejected does nothing: its presence makes a Trigger a Discarder.
	DiscardsRejected()
}

// Noter is a Trigger with notes on its source's settings, for operators who examine what limits
// a function.
type Noter interface {
	// Notes returns the notes, one sentence each.
	Notes() []string
}

// ErrNotFound is returned by Find for a message that the source does not show.
var ErrNotFound = errors.New("the source does not show such a message")

// ErrUnsearchable is returned by Find if the source cannot be searched.
var ErrUnsearchable = errors.New("the source cannot be searched")
