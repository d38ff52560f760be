package triggers

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestReadSchedule(t *testing.T) {
	at := time.Date(2026, 12, 1, 15, 4, 5, 250_000_000, time.UTC)
	for _, test := range []struct {
		p    Properties
		at   time.Time
		life time.Duration
	}{
		{nil, time.Time{}, 0},
		{Properties{ContentType: "x"}, time.Time{}, 0},
		{Properties{ScheduledAt: "2026-12-01T15:04:05.25Z"}, at, 0},
		{Properties{ScheduledAt: "2026-12-01T16:04:05.250000+01:00", TimeToLive: "90"}, at, 90 * time.Second},
		{Properties{TimeToLive: "0.5"}, time.Time{}, 500 * time.Millisecond},
		{Properties{TimeToLive: "1e300"}, time.Time{}, maxLife},
	} {
		at, life, err := ReadSchedule(test.p)
		if err != nil || !at.Equal(test.at) || life != test.life {
			t.Errorf("%v: %v, %v, %v; want %v and %v", test.p, at, life, err, test.at, test.life)
		}
	}
	for _, test := range []struct {
		p    Properties
		want string
	}{
		{Properties{ScheduledAt: "tomorrow"}, `scheduled_at is "tomorrow", which is not a time in RFC 3339`},
		{Properties{TimeToLive: "1h"}, `time_to_live is "1h", which is not a number of seconds`},
		{Properties{TimeToLive: "0"}, "greater than 0"}, {Properties{TimeToLive: "-1"}, "greater than 0"}, {Properties{TimeToLive: "NaN"}, "greater than 0"},
	} {
		if _, _, err := ReadSchedule(test.p); !errors.Is(err, ErrProperty) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v; want %q", test.p, err, test.want)
		}
	}
}
