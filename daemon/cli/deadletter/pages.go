package deadletter

import (
	"context"

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
