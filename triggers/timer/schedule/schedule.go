// Package schedule computes the occurrences of a timer, as Azure Functions does: from an NCRONTAB
// expression or from a time span. It has no clock and does no I/O.
//
// An NCRONTAB expression has five fields, or six with the seconds first:
//
//	{second} {minute} {hour} {day} {month} {day of the week}
//
// It differs from the expressions of cron in these points: a day must match both the day of the
// month and the day of the week; a name may be shortened to any prefix, such as Sund or S; the
// ends of a range may be in either order; Sunday is 0 and never 7; and there is no ?, L, W or #.
//
// At a change of the clock an occurrence whose time does not exist comes an hour later. Of
// a time that comes twice, a point in time takes the first. An interval, which has *, / or - in
// its seconds, minutes or hours, continues through both.
package schedule

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is when a timer is due. It is immutable.
type Schedule struct {
	text  string
	zone  *time.Location
	span  time.Duration // 0: by cron
	cron  *cron.SpecSchedule
	every bool // an interval, not a point in time
	notes []string
}

// Parse parses an NCRONTAB expression, with times in a zone, or a time span:
// [d.]hh:mm[:ss]. The error contains neither the text nor its place.
func Parse(text string, zone *time.Location) (*Schedule, error) {
	s := &Schedule{text: strings.TrimSpace(text), zone: zone}
	if len(strings.Fields(text)) == 1 && strings.ContainsRune(text, ':') && !strings.Contains(text, "=") {
		span, err := parseSpan(s.text)
		s.span = span
		return s, err
	}
	var err error
	if s.cron, s.every, s.notes, err = parseCron(s.text); err != nil {
		return nil, err
	}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("no date has its day, month and day of the week: both days must match; it would never run")
	}
	return s, nil
}

// String returns the text that was parsed.
func (s *Schedule) String() string { return s.text }

// Zone returns the time zone.
func (s *Schedule) Zone() *time.Location { return s.zone }

// Span returns the time span; 0 for an expression.
func (s *Schedule) Span() time.Duration { return s.span }

// Notes returns parts of the expression that may mean something else than was intended.
func (s *Schedule) Notes() []string { return s.notes }

// IsFrequent reports whether occurrences may be less than a minute apart.
func (s *Schedule) IsFrequent() bool {
	if s.span > 0 {
		return s.span < time.Minute
	}
	return bits.OnesCount64(s.cron.Second) > 1
}

// maxYears limits the search for an occurrence. February 29 falls on a given day of the week at
// least every 40 years. robfigYears is the limit of one search of the library.
const (
	maxYears    = 45
	robfigYears = 5
)

// maxChanges bounds the changes of the clock that a search passes: a few zones have four a year.
const maxChanges = 4 * maxYears

// Next returns the first occurrence after a time, in the schedule's zone. It is zero if there is
// none. A time span is added to the time.
func (s *Schedule) Next(after time.Time) time.Time {
	t := after.In(s.zone)
	if s.span > 0 {
		return t.Add(s.span)
	}
	return s.search(t, false)
}

// ListNext returns the first n occurrences after a time. It returns none for a time span, which
// depends on when runs end.
func (s *Schedule) ListNext(after time.Time, n int) (out []time.Time) {
	for s.span == 0 && len(out) < n {
		if after = s.Next(after); after.IsZero() {
			break
		}
		out = append(out, after)
	}
	return out
}

// search returns the first match after t or, if inclusive, at t. It passes from one change of the
// clock to the next: between two of them the wall clock is regular.
func (s *Schedule) search(t time.Time, inclusive bool) time.Time {
	for range maxChanges {
		start, end := t.ZoneBounds()
		_, offset := t.Zone()
		from := wallClock(t)
		if inclusive {
			from = from.Add(-1)
		}
		if again := s.repeatedUntil(start, offset); from.Before(again) {
			from = again.Add(-1)
		}
		n := s.nextByCron(from)
		if n.IsZero() {
			return n
		}
		at := n.Add(-time.Duration(offset) * time.Second).In(s.zone)
		if end.IsZero() || at.Before(end) {
			return at
		}
		if n.Before(wallClock(end)) { // the clock leaves it out
			if next := s.search(end, true); next.Before(at) {
				return next
			}
			return at
		}
		t, inclusive = end, true
	}
	return time.Time{}
}

// repeatedUntil returns the end of the times that the clock shows again after start, by the wall
// clock; zero if there are none, or if the schedule runs at them again.
func (s *Schedule) repeatedUntil(start time.Time, offset int) time.Time {
	if s.every || start.IsZero() {
		return time.Time{}
	}
	_, before := start.Add(-1).In(s.zone).Zone()
	if before <= offset {
		return time.Time{}
	}
	return wallClock(start).Add(time.Duration(before-offset) * time.Second)
}

// nextByCron returns the first match after a time of the wall clock.
func (s *Schedule) nextByCron(from time.Time) time.Time {
	for range maxYears / robfigYears {
		if n := s.cron.Next(from); !n.IsZero() {
			return n
		}
		from = from.AddDate(robfigYears, 0, 0)
	}
	return time.Time{}
}

// wallClock returns the wall-clock time at t, as a time in UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}
