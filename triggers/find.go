package triggers

import (
	"context"
	"errors"
	"time"
)

// Finder is a Trigger that can tell where one of its messages is, without receiving
// it. Find is for people who ask; it may take requests to the source.
type Finder interface {
	// Find looks for a message by its ID. ErrNotFound says that it is not there, or
	// that the source does not show it: what others have on loan, for one. ErrUnsearchable
	// says that nothing can be looked for.
	Find(ctx context.Context, id string) (Found, error)
}

// Found is where a message is.
type Found struct {
	Place Place
	// Ahead counts those that are handed out before it, and have been, where the source
	// does not tell; negative if it is not known.
	Ahead int64
	// Doubtful says that the source does not tell whether somebody has a message that
	// it shows as ready.
	Doubtful bool
	// Failures counts those that the function caused; negative if that is not known.
	Failures int
	Enqueued time.Time // zero: not known
	Due      time.Time // when it is handed out at the earliest; zero: not known, or now
	Note     string    // what else the source says; may be empty
}

// Place is where a message is at its source.
type Place string

// The places.
const (
	PlaceReady Place = "ready" // it can be received
	PlaceLater Place = "later" // it is hidden until a time
	PlaceHeld  Place = "held"  // this trigger has it, handed out or not yet, or until its retry
	PlaceLent  Place = "lent"  // it was handed out before: somebody has it, or it waits for its retry
	PlaceDone  Place = "done"  // it was settled, and the source keeps it for others
	PlaceSpent Place = "spent" // the source has delivered it as often as it may, and does not any more
)

// Noter is a Trigger that has something to say about its source's settings, to people who ask
// what holds a function back.
type Noter interface {
	// Notes returns it, a sentence each.
	Notes() []string
}

// ErrNotFound says that a source does not show a message.
var ErrNotFound = errors.New("the source does not show such a message")

// ErrUnsearchable says that a source cannot be searched for a message.
var ErrUnsearchable = errors.New("nothing can be looked for there")
