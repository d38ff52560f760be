package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drover-run/drover/triggers"
)

const (
	// FullPage is how many dead letters are read at once.
	FullPage = 256
	// PeekPage is how many letters every source returns without changing its state.
	PeekPage = 32
)

// PageSize returns how many dead letters to read at once for a command with a limit; 0 is no limit.
func PageSize(limit int) int {
	if limit > 0 && limit <= PeekPage {
		return PeekPage
	}
	return FullPage
}

// BrowseAll yields all dead letters, oldest first, a page at a time. It ends after an error.
func BrowseAll(ctx context.Context, d triggers.DeadLetters, page int) func(yield func(triggers.DeadLetter, error) bool) {
	return func(yield func(triggers.DeadLetter, error) bool) {
		for {
			got, err := d.Browse(ctx, page)
			if err != nil {
				yield(triggers.DeadLetter{}, err)
				return
			}
			if len(got) == 0 {
				return
			}
			for _, letter := range got {
				if !yield(letter, nil) {
					return
				}
			}
		}
	}
}

// ErrNotFound is the error of FindOne if no dead letter has the ID.
var ErrNotFound = errors.New("no dead letter has this ID")

// FindOne returns the dead letter with an ID, or else the only one whose message has that ID, because
// logs print message IDs. The error is ErrNotFound, or lists the dead letters if several have that
// message ID.
func FindOne(ctx context.Context, d triggers.DeadLetters, id string) (found triggers.DeadLetter, err error) {
	var same []string
	for letter, err := range BrowseAll(ctx, d, FullPage) {
		switch {
		case err != nil:
			return found, err
		case letter.ID == id:
			return letter, nil
		case letter.Message.ID == id:
			found = letter
			same = append(same, letter.ID)
		}
	}
	switch len(same) {
	case 0:
		return found, ErrNotFound
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%d dead letters have the message ID %s; name one of them: %s", len(same), id, firstIDs(same))
}

// firstIDs returns the first IDs of a list.
func firstIDs(ids []string) string {
	const few = 10
	if len(ids) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:few], ", "), len(ids)-few)
	}
	return strings.Join(ids, ", ")
}

// ReadOldest returns the oldest dead letters that match, at most PeekPage.
func ReadOldest(ctx context.Context, d triggers.DeadLetters, match func(*triggers.DeadLetter) bool) (out []triggers.DeadLetter, err error) {
	for letter, err := range BrowseAll(ctx, d, PeekPage) {
		if err != nil {
			return nil, err
		}
		if match(&letter) {
			out = append(out, letter)
		}
		if len(out) == PeekPage {
			break
		}
	}
	return out, nil
}
