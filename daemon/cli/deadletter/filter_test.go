package deadletter

import (
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

func TestFilterByFunction(t *testing.T) {
	for function, want := range map[string][2]bool{"greet": {true, true}, "": {true, true}, "audit": {false, true}} {
		for i, any := range []bool{false, true} {
			match, err := (&Filter{AnyFunction: any}).NewMatch("greet", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if got := match(&triggers.DeadLetter{Function: function}); got != want[i] {
				t.Errorf("one of %q, any %v: %v", function, any, got)
			}
		}
	}
}

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"2h":                   now.Add(-2 * time.Hour),
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
		"2026-01-31 08:30":     time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC),
		"2026-01-31T08:30:00Z": time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC),
	} {
		got, err := parseWhen("--after", text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"soon", "-1h", "31.1.2026", "9999999d"} {
		if got, err := parseWhen("--after", text, now); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
