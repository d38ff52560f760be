// Package term formats text for a terminal: widths, colors, and short forms of values. Text from outside
// must pass through Printable first, so that a message or a log cannot control the terminal.
package term

import (
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Printable replaces each control character but newlines and tabs by a question mark.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// NewWriter returns a writer that writes text Printable to another one.
func NewWriter(to io.Writer) io.Writer { return writer{to} }

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, Printable(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// OneLine returns a text as one line of at most n characters; n must be at least 3. A longer
// text ends with "...".
func OneLine(text string, n int) string {
	text = strings.Join(strings.Fields(Printable(text)), " ")
	if utf8.RuneCountInString(text) > n {
		text = string([]rune(text)[:n-3]) + "..."
	}
	return text
}

// IndentLines returns a text whose lines but the first are indented, so that none of them can be
// taken for a separate line.
func IndentLines(text string) string { return strings.ReplaceAll(Printable(text), "\n", "\n    ") }

// OrDash returns a text, or "-" if it is empty.
func OrDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// LocalTime returns a time to the second in the local time zone, or "-" for the zero time.
func LocalTime(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04:05")
}

// ShortDuration returns a duration in about three digits, or "-" for 0.
func ShortDuration(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
