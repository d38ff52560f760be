// Package console prints the log on a terminal, in the same format for `drover run` and `drover tail`.
// A line has a short time, the level, the function, the text and the attributes. A traceback is indented
// below it, cut to the frames of the user's code. At the start `drover run` also prints the functions
// and some commands to try next.
package console

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
)

// Console is a slog.Handler that prints lines to a terminal. It may be used by many goroutines.
type Console struct {
	out    *output
	level  slog.Leveler
	attrs  []slog.Attr // the logger's
	prefix string      // precedes the keys of attributes in a group
}

// output is shared by the handlers of one console.
type output struct {
	mu     sync.Mutex
	writer io.Writer
	style  Style
	// details are the last tracebacks of functions.
	details map[string]detail
}

// detail is a traceback and the time at which it was printed.
type detail struct {
	text string
	at   time.Time
}

// maxDetails bounds the functions whose last traceback is kept.
const maxDetails = 1000

// New returns a console that prints lines of at least a level. The width of the terminal is read
// before each line.
func New(writer io.Writer, style Style, level slog.Leveler) *Console {
	return &Console{out: &output{writer: writer, style: style, details: make(map[string]detail)}, level: level}
}

// Enabled implements slog.Handler.
func (c *Console) Enabled(_ context.Context, level slog.Level) bool { return level >= c.level.Level() }

// Handle implements slog.Handler.
func (c *Console) Handle(_ context.Context, r slog.Record) error {
	line := Line{Time: r.Time, Level: r.Level, Text: r.Message}
	for _, a := range c.attrs {
		line.add("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		line.add(c.prefix, a)
		return true
	})
	return c.out.print(line)
}

// WithAttrs implements slog.Handler.
func (c *Console) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *c
	own.attrs = slices.Clone(c.attrs)
	for _, a := range attrs {
		own.attrs = append(own.attrs, slog.Attr{Key: c.prefix + a.Key, Value: a.Value})
	}
	return &own
}

// WithGroup implements slog.Handler.
func (c *Console) WithGroup(name string) slog.Handler {
	own := *c
	own.prefix += name + "."
	return &own
}

// maxFunctionColumns bounds the column of the functions. Longer names are not cut; they shift the
// text of their line.
const maxFunctionColumns = 16

func (o *output) print(line Line) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.style = o.style.For(o.writer)
	o.shortenRepeated(&line)
	// The column grows with the names that appear.
	o.style.FunctionColumns = max(o.style.FunctionColumns, min(term.Columns(term.Printable(line.Function)), maxFunctionColumns), term.Columns(daemonName))
	// The carriage return overwrites the ^C that a terminal shows when Ctrl-C is pressed.
	_, err := io.WriteString(o.writer, "\r"+o.style.Format(line))
	return err
}

// shortenRepeated replaces a traceback that is the same as the function's previous one.
func (o *output) shortenRepeated(line *Line) {
	for i, a := range line.Attrs {
		if a.Key != "detail" || !strings.Contains(a.Value, "\n") {
			continue
		}
		last, found := o.details[line.Function]
		if found && last.text == a.Value {
			line.Attrs[i].Value = "the traceback is the same as at " + last.at.Local().Format(timeFormat)
		} else if found || len(o.details) < maxDetails {
			o.details[line.Function] = detail{a.Value, line.Time}
		}
	}
}
