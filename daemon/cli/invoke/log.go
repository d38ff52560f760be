package invoke

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
)

// Line is one line of the log.
type Line struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	// From is stdout, stderr or the name of a logger. It is empty for drover's own lines.
	From  string            `json:"from,omitempty"`
	Text  string            `json:"text"`
	Attrs map[string]string `json:"attrs,omitempty"`
}

func (l Line) String() string {
	text := l.Text
	for _, name := range slices.Sorted(maps.Keys(l.Attrs)) {
		text += " " + name + "=" + l.Attrs[name]
	}
	from := l.From
	if from == "" {
		from = "drover"
	}
	if l.Level != slog.LevelInfo.String() {
		from = l.Level + " " + from
	}
	return from + " | " + term.Printable(text)
}

// Log is the slog handler of one invocation. It keeps the lines, and prints them when they are
// logged.
type Log struct {
	Level slog.Level
	Print func(Line) // nil: they are only kept

	mu    sync.Mutex
	lines []Line
}

// Enabled implements slog.Handler.
func (l *Log) Enabled(_ context.Context, level slog.Level) bool { return level >= l.Level }

// WithAttrs implements slog.Handler. It drops the attributes, which are the same in each line:
// there is one function, and one worker.
func (l *Log) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler, likewise.
func (l *Log) WithGroup(string) slog.Handler { return l }

// Handle implements slog.Handler.
func (l *Log) Handle(_ context.Context, r slog.Record) error {
	line := Line{Time: r.Time, Level: r.Level.String(), Text: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "stream", "logger":
			line.From = a.Value.String()
		case "function", "message":
		default:
			if line.Attrs == nil {
				line.Attrs = make(map[string]string)
			}
			line.Attrs[a.Key] = a.Value.String()
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if l.Print != nil {
		l.Print(line)
	}
	return nil
}

// AllLines returns the lines so far; empty, not nil, if there are none.
func (l *Log) AllLines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line{}, l.lines...)
}
