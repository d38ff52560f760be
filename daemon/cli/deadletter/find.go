package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

// IsNamed reports whether an ID names a dead letter of a function: by its own ID, or by the ID of its
// message, which the log has.
func IsNamed(letter *triggers.DeadLetter, function, id string) bool {
	return (letter.ID == id || letter.Message.ID == id) && (letter.Function == "" || letter.Function == function)
}

// FindNamed returns the dead letter with an ID, and its function. It searches the dead letters of several
// functions; open opens those of one function. Finding none, or several, is an error.
func FindNamed(ctx context.Context, id string, functions []string, open func(function string) (triggers.DeadLetters, func() error, error)) (function string, letter triggers.DeadLetter, err error) {
	var found []string
	var failures []error
	for _, name := range functions {
		err := searchOne(ctx, name, open, func(l triggers.DeadLetter) {
			if IsNamed(&l, name, id) {
				found, function, letter = append(found, fmt.Sprintf("drover dead show %s %s", name, term.OneLine(l.ID, 80))), name, l
			}
		})
		if err != nil {
			failures = append(failures, fmt.Errorf("dead letters of %s: %w", name, err))
		}
	}
	switch {
	case ctx.Err() != nil:
		return "", letter, errors.New("stopped before the dead letter was found")
	case len(found) == 1:
		return function, letter, nil
	case len(found) > 1:
		return "", letter, fmt.Errorf("%d dead letters have the ID %s; choose one with --function and its own ID; to print them:\n  %s", len(found), term.OneLine(id, 80), strings.Join(found, "\n  "))
	}
	none := fmt.Errorf("no dead letter or message has the ID %s; drover dead list FUNCTION lists the dead letters of %s", term.OneLine(id, 80), strings.Join(functions, ", "))
	return "", letter, errors.Join(append([]error{none}, failures...)...)
}

// searchOne calls check with each dead letter of a function.
func searchOne(ctx context.Context, function string, open func(string) (triggers.DeadLetters, func() error, error), check func(triggers.DeadLetter)) (err error) {
	d, done, err := open(function)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	for letter, err := range BrowseAll(ctx, d, FullPage) {
		if err != nil {
			return err
		}
		check(letter)
	}
	return nil
}
