package term

import (
	"testing"
	"time"
)

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		Printable("a\x1b[31m\tb\nc\u009b\x7f"): "a?[31m\tb\nc??",
		OneLine("a\n b\x00c   d", 20):          "a b?c d",
		OneLine("1234567", 6):                  "123...",
		OneLine("äöüäöü", 6):                   "äöüäöü",
		IndentLines("a\nb\x1b"):                "a\n    b?",
		OrDash(""):                             "-",
		OrDash("a"):                            "a",
		LocalTime(time.Time{}):                 "-",
		LocalTime(time.Date(2026, 1, 2, 3, 4, 5, 6, time.Local)): "2026-01-02 03:04:05",
		ShortDuration(0):                            "-",
		ShortDuration(123456 * time.Nanosecond):     "120µs",
		ShortDuration(12345678 * time.Nanosecond):   "12.3ms",
		ShortDuration(1234567890 * time.Nanosecond): "1.23s",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
