package deadletter

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/pairs"
	"github.com/drover-run/drover/triggers"
)

// Filter has the flags that select dead letters of a source. A letter must match all that are
// given.
type Filter struct {
	Reason    string      `placeholder:"TEXT" help:"Select those whose reason contains this text, ignoring case."`
	After     string      `placeholder:"TIME" help:"Select those dead-lettered after a time (2026-01-31, 2026-01-31T08:00:00Z) or within an age (2h, 7d)."`
	Before    string      `placeholder:"TIME" help:"Select those dead-lettered before a time, or longer ago than an age."`
	Attribute pairs.Pairs `short:"a" placeholder:"NAME=VALUE" help:"Select those with this attribute. May be repeated."`
	ID        []string    `name:"id" placeholder:"ID" help:"Select the one with this ID, or those with this message ID. May be repeated."`

	AnyFunction bool `help:"Include those that other functions rejected from the same source."`
}

// IsGiven reports whether any of the flags is given. AnyFunction does not count.
func (f *Filter) IsGiven() bool {
	return f.Reason != "" || f.After != "" || f.Before != "" || len(f.Attribute) > 0 || len(f.ID) > 0
}

// NewMatch returns a function that reports whether a dead letter of a function is selected. Ages
// are relative to now. The error is an exit.UsageError.
func (f *Filter) NewMatch(function string, now time.Time) (func(*triggers.DeadLetter) bool, error) {
	after, err := parseWhen("--after", f.After, now)
	if err != nil {
		return nil, err
	}
	before, err := parseWhen("--before", f.Before, now)
	if err != nil {
		return nil, err
	}
	if !after.IsZero() && !before.IsZero() && !after.Before(before) {
		return nil, exit.UsageError("no time is after --after and before --before")
	}
	reason := strings.ToLower(f.Reason)
	return func(d *triggers.DeadLetter) bool {
		switch {
		case !f.AnyFunction && d.Function != "" && d.Function != function:
		case !strings.Contains(strings.ToLower(d.Reason), reason):
		case !after.IsZero() && !d.Died.After(after):
		case !before.IsZero() && (d.Died.IsZero() || !d.Died.Before(before)):
		case len(f.ID) > 0 && !slices.Contains(f.ID, d.ID) && !slices.Contains(f.ID, d.Message.ID):
		default:
			for name := range maps.Keys(f.Attribute) {
				if value, there := d.Message.Attributes[name]; !there || value != f.Attribute[name] {
					return false
				}
			}
			return true
		}
		return false
	}, nil
}

var days = regexp.MustCompile(`^(\d{1,5})d$`)

// parseWhen parses a time, or an age before now. An empty text is the zero time.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if m := days.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1]) // only digits
		return now.AddDate(0, 0, -n), nil
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", time.DateTime} {
		if at, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, exit.UsageError(fmt.Sprintf("%s is %q; write a time as 2026-01-31, 2026-01-31T08:00:00Z or \"2026-01-31 08:00\", or an age as 90m or 7d", flag, text))
}

// SummaryText describes a list of n dead letters with a limit. others is the number of dead letters of other
// functions that were left out.
func (f *Filter) SummaryText(n, others, limit int) string {
	matching := ""
	if f.IsGiven() {
		matching = "matching "
	}
	text := fmt.Sprintf("%d %sdead letters", n, matching)
	switch n {
	case 0:
		text = "no " + matching + "dead letters"
	case 1:
		text = "1 " + matching + "dead letter"
	}
	if n == limit && n > 0 {
		text += ", and maybe more: --limit shows them"
	}
	if others > 0 && !f.AnyFunction {
		text += fmt.Sprintf("; other functions have %d more at the same source: --any-function shows them", others)
	}
	return text
}
