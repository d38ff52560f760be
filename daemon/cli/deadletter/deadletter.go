// Package deadletter selects, prints, replays and purges dead letters: messages that functions
// rejected, or that have used up their attempts. The commands of drover dead open the dead
// letters at their source and call it, from one goroutine.
package deadletter

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

// Job is a replay or a purge. It is used once.
type Job struct {
	*Selection
	Out, Err io.Writer
	// ErrIsTerminal has the progress drawn on Err, in the colors of Palette.
	ErrIsTerminal bool
	Palette       term.Palette
	// ForceStop is closed to cancel the letters that are being replayed or purged. When the
	// context ends, those are finished, and no others are started.
	ForceStop <-chan struct{}
	// DataDir is the directory of the journal of replays.
	DataDir string
}

// ReplayOptions are for ReplaySelected alone.
type ReplayOptions struct {
	// OrderKey returns what a letter's order is within, such as its session. Letters of one key
	// are sent one after another, in the order in which they died.
	OrderKey func(*triggers.DeadLetter) string
	// Doubtful sends also letters that a killed replay may have sent.
	Doubtful bool
}

// ReplaySelected sends the selected dead letters back to their sources, and prints a summary. The
// error reports which were left, and why.
func (j *Job) ReplaySelected(ctx context.Context, d triggers.DeadLetters, options ReplayOptions) error {
	r := &run{job: j, verb: "replay", done: "replayed", orderKey: options.OrderKey}
	return r.withJournal(ctx, d, func(ctx context.Context, records *journal, letter triggers.DeadLetter) error {
		tried, err := records.beginLetter(letter.ID, letter.Died, time.Now())
		if err != nil {
			return err
		}
		if options.Doubtful {
			err = d.Replay(ctx, letter, time.Time{})
		} else {
			err = d.Replay(ctx, letter, tried)
		}
		if err == nil || errors.Is(err, triggers.ErrShared) && tried.IsZero() {
			err = errors.Join(err, records.endLetter(letter.ID))
		}
		return err
	})
}

// PurgeSelected removes the selected dead letters, and prints a summary. The error reports which
// were left, and why.
func (j *Job) PurgeSelected(ctx context.Context, d triggers.DeadLetters) error {
	r := &run{job: j, verb: "purge", done: "purged"}
	return r.withJournal(ctx, d, func(ctx context.Context, records *journal, letter triggers.DeadLetter) error {
		if err := d.Remove(ctx, letter); err != nil {
			return err
		}
		return records.endLetter(letter.ID)
	})
}
