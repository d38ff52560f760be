package scaler

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule is a time of the week with its own minimum.
type Schedule struct {
	// From and To are times of day, since midnight. If To is not after From, it is on the next
	// day.
	From, To time.Duration
	// Days are those on which it begins; empty is every day.
	Days []time.Weekday
	// Min is the least number of units.
	Min int
}

const day = 24 * time.Hour

func (s Schedule) checkBounds(most int) error {
	switch {
	case s.From < 0 || s.From >= day || s.To < 0 || s.To > day:
		return fmt.Errorf("from %v to %v: times of day are between 00:00 and 24:00", s.From, s.To)
	case s.Min < 1 || s.Min > most:
		return fmt.Errorf("min is %d; it must be between 1 and max (%d)", s.Min, most)
	}
	return nil
}

// holdsAt reports whether a moment is within the schedule. The time of day is wall-clock
// time, also on days with a clock change.
func (s Schedule) holdsAt(t time.Time) bool {
	now := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	on := func(d time.Weekday) bool { return len(s.Days) == 0 || slices.Contains(s.Days, d) }
	if s.From < s.To {
		return now >= s.From && now < s.To && on(t.Weekday())
	}
	return now >= s.From && on(t.Weekday()) || now < s.To && on((t.Weekday()+6)%7)
}

// String returns the schedule as a phrase.
func (s Schedule) String() string {
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	text := fmt.Sprintf("at least %d from %s to %s", s.Min, clock(s.From), clock(s.To))
	if len(s.Days) > 0 {
		var days []string
		for _, d := range s.Days {
			days = append(days, strings.ToLower(d.String()[:3]))
		}
		text += " on " + strings.Join(days, ", ")
	}
	return text
}
