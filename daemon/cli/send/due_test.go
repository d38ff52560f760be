package send

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/sources"
)

func TestDue(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	at := now.Add(time.Hour)
	for _, c := range []struct {
		at    string
		delay time.Duration
		want  time.Time
		says  string
	}{
		{"", 0, now, ""},
		{"", time.Minute, now.Add(time.Minute), ", due in 1m0s"},
		{at.Format(time.RFC3339), 0, at, ", due at " + at.Format(time.RFC3339)},
	} {
		d, err := ParseDue(c.at, c.delay)
		if err != nil || !d.From(now).Equal(c.want) || d.String() != c.says || d.IsNow() != c.want.Equal(now) {
			t.Errorf("%+v: %+v, %v", c, d, err)
		}
	}
}

func TestDueRefused(t *testing.T) {
	week, minute := sources.Accepts{Name: "a storage queue", MaxDelay: 7 * 24 * time.Hour}, time.Minute
	in := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339) }
	for _, c := range []struct {
		at      string
		delay   time.Duration
		accepts sources.Accepts
		ttl     *time.Duration
		want    string
	}{
		{at: in(time.Hour), delay: time.Hour, want: "give --at or --delay, not both"},
		{delay: -1, want: "--delay must not be negative"},
		{at: "tomorrow", want: `--at is "tomorrow"; write it as 2026-01-31T08:00:00Z`},
		{at: in(-time.Minute), want: "is in the past"},
		{at: in(8 * 24 * time.Hour), accepts: week, want: "too far ahead: a storage queue can hold a message for at most 7 days"},
		{delay: 7*24*time.Hour + time.Second, accepts: week, want: "--delay: "},
		{delay: time.Hour, accepts: week, ttl: &minute, want: "--delay: the messages would expire after 1m0s (--ttl), before they can be received, after 1h0m0s"},
	} {
		d, err := ParseDue(c.at, c.delay)
		if err == nil {
			err = d.Check(c.accepts, c.ttl)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c, err, c.want)
		}
	}
	for _, d := range []Due{{}, {Delay: 7 * 24 * time.Hour}, {At: time.Now().Add(time.Hour)}} {
		if err := d.Check(week, nil); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	}
}
