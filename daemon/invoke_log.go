package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
)

// invokeLine is one line of the log.
type invokeLine struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	// From is stdout, stderr or the name of a logger; empty for what drover says.
	From  string            `json:"from,omitempty"`
	Text  string            `json:"text"`
	Attrs map[string]string `json:"attrs,omitempty"`
}

func (l invokeLine) String() string {
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

// invokeLog is the log of one invocation: it keeps the lines, and prints them as
// they come.
type invokeLog struct {
	level slog.Level
	print func(invokeLine) // nil: they are only kept

	mu    sync.Mutex
	lines []invokeLine
}

func (l *invokeLog) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

// WithAttrs and WithGroup leave away what is the same in each line: there is one
// function, and one worker.
func (l *invokeLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *invokeLog) WithGroup(string) slog.Handler      { return l }

func (l *invokeLog) Handle(_ context.Context, r slog.Record) error {
	line := invokeLine{Time: r.Time, Level: r.Level.String(), Text: r.Message}
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
	if l.print != nil {
		l.print(line)
	}
	return nil
}

// all are the lines so far; none is an empty list.
func (l *invokeLog) all() []invokeLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]invokeLine{}, l.lines...)
}
