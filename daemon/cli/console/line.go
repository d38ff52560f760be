package console

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/term"
)

// daemonName is the daemon's name in the column of the functions.
const daemonName = "drover"

// timeFormat is the format of times of the day.
const timeFormat = "15:04:05.000"

// indent precedes all lines of an event after the first, so that they do not look like separate events.
const indent = "    "

// Line is an event of the log. Nothing in it needs to be Printable.
type Line struct {
	Time     time.Time
	Level    slog.Level
	Instance int    // 0: there is only one
	Function string // empty: the event is about the daemon
	Text     string
	Attrs    []Attr // in the order in which they are printed
}

// Attr is an attribute of an event, with its value as text.
type Attr struct{ Key, Value string }

// LineOf returns the event of a line of a function's log, as the daemon reports it.
func LineOf(function string, l daemon.LogLine) Line {
	line := Line{Time: l.Time, Level: l.Level, Instance: l.Instance, Function: function, Text: l.Text}
	keys := sortedNames(l.Attrs)
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(rankOf(a), rankOf(b)) })
	for _, key := range keys {
		text := fmt.Sprint(l.Attrs[key])
		if number, is := l.Attrs[key].(float64); is { // without an exponent
			text = strconv.FormatFloat(number, 'f', -1, 64)
		}
		if d, err := time.ParseDuration(text); err == nil && slices.Contains(durations, key) {
			text = term.ShortDuration(d)
		}
		line.Attrs = append(line.Attrs, Attr{key, text})
	}
	return line
}

// The attributes of a line that the daemon reports have no order, and durations are texts. With these it
// looks as the daemon's own log prints it.
var (
	leading   = []string{"message", "invocation", "attempt"}
	durations = []string{"took", "retry_in"}
)

// rankOf returns the place of an attribute in a line.
func rankOf(key string) int {
	if at := slices.Index(leading, key); at >= 0 {
		return at
	}
	return len(leading)
}

// add adds an attribute of a record.
func (l *Line) add(prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	switch key := prefix + a.Key; {
	case key == "function":
		l.Function = value.String()
	case key == "instance" && value.Kind() == slog.KindInt64:
		l.Instance = int(value.Int64())
	case value.Kind() == slog.KindGroup:
		for _, inner := range value.Group() {
			l.add(key+".", inner)
		}
	case value.Kind() == slog.KindDuration && value.Duration() != 0:
		l.Attrs = append(l.Attrs, Attr{key, term.ShortDuration(value.Duration())})
	case value.Kind() == slog.KindTime:
		l.Attrs = append(l.Attrs, Attr{key, term.LocalTime(value.Time())})
	default:
		l.Attrs = append(l.Attrs, Attr{key, value.String()})
	}
}

// Style is the format of lines. The zero value neither wraps, colors nor cuts anything.
type Style struct {
	Palette term.Palette
	Columns int // the width of the terminal; 0: lines are not wrapped
	// FunctionColumns is the width of the column of the functions; 0: there is none.
	FunctionColumns int
	// CutTracebacks leaves out the frames of libraries. Paths below Dir become relative.
	CutTracebacks bool
	Dir           string
}

// StyleOf returns the style of a terminal, or of another output.
func StyleOf(isTerminal bool, env configs.Env) Style {
	if !isTerminal {
		return Style{}
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // paths stay absolute
	}
	return Style{Palette: term.NewPalette(true, env), CutTracebacks: true, Dir: dir}
}

// For returns the style with the width of the terminal that an output writes to, if it is one.
func (s Style) For(out any) Style {
	if columns, _, known := term.Size(out); known {
		s.Columns = columns
	}
	return s
}

// parts are the attributes of a line, grouped by position.
type parts struct {
	output bool     // the text is from the function, not from drover
	cause  string   // follows the text
	fields []string // key=value
	blocks []block  // below the line
}

type block struct{ key, text string }

// partsOf sorts the attributes of a line.
func partsOf(l Line) (p parts) {
	values := make(map[string]string, len(l.Attrs))
	for _, a := range l.Attrs {
		values[a.Key] = a.Value
	}
	_, fromLogger := values["logger"]
	_, fromStream := values["stream"]
	p.output = fromLogger || fromStream
	for _, a := range l.Attrs {
		switch {
		case a.Key == "app", a.Key == "stream", a.Key == "worker" && p.output,
			a.Key == "logger" && slices.Contains([]string{"", "root", "stdout", "stderr", l.Function}, a.Value),
			a.Key == "max_attempts" && values["attempt"] != "",
			a.Key == "reason" && values["error"] != "" && strings.HasSuffix(a.Value, values["error"]): // it repeats the error
		case strings.Contains(strings.TrimRight(a.Value, "\n"), "\n"):
			p.blocks = append(p.blocks, block{a.Key, strings.TrimRight(a.Value, "\n")})
		case a.Key == "error", a.Key == "reason":
			p.cause += ": " + strings.TrimRight(a.Value, "\n")
		case a.Key == "detail":
			p.blocks = append(p.blocks, block{a.Key, a.Value})
		case a.Key == "attempt" && values["max_attempts"] != "":
			p.fields = append(p.fields, "attempt="+quote(a.Value)+"/"+quote(values["max_attempts"]))
		default:
			p.fields = append(p.fields, term.Printable(a.Key)+"="+quote(a.Value))
		}
	}
	return p
}

// quote returns a value in quotes if it has spaces, quotes or characters that cannot be printed.
func quote(value string) string {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || !strconv.IsPrint(r) }) {
		return strconv.Quote(value)
	}
	return value
}

// Format returns the text of a line, and the lines below it.
func (s Style) Format(l Line) string {
	p := partsOf(l)
	head, columns := s.head(l)
	text := l.Text + p.cause
	if s.CutTracebacks {
		text = cutTraceback(text, s.Dir, s.Columns-len(indent))
	}
	lines := strings.Split(strings.TrimRight(printableText(text), "\n"), "\n")
	at := 0 // the line to which the attributes are added
	if !p.output && len(lines) == 1 {
		lines = s.wrapAfter(columns, lines[0])
		at = len(lines) - 1
	}
	before := columns
	if at > 0 {
		before = len(indent)
	}
	fields, below := strings.Join(p.fields, " "), ""
	switch {
	case fields == "":
	case s.Columns == 0 || before+term.Columns(lines[at])+2+term.Columns(fields) <= s.Columns:
		lines[at] += "  " + s.Palette.Apply(term.Dim, fields)
	default:
		for _, line := range term.Wrap(fields, s.Columns-len(indent), "") {
			below += indent + s.Palette.Apply(term.Dim, line) + "\n"
		}
	}
	return head + strings.Join(lines, "\n"+indent) + "\n" + below + s.blocksText(p.blocks)
}

// head returns the beginning of a line, and its width in columns.
func (s Style) head(l Line) (text string, columns int) {
	at, level := l.Time.Local().Format(timeFormat), fmt.Sprintf("%-5s", l.Level)
	text, columns = s.Palette.Apply(term.Dim, at)+" "+s.Palette.Apply(levelStyle(l.Level), level)+" ", len(at)+len(level)+2
	if l.Instance > 0 {
		of := fmt.Sprintf("[%d] ", l.Instance)
		text, columns = text+of, columns+len(of)
	}
	if s.FunctionColumns > 0 {
		name, style := term.Printable(l.Function), term.Cyan
		if name == "" {
			name, style = daemonName, term.Dim
		}
		name += strings.Repeat(" ", max(s.FunctionColumns-term.Columns(name), 0))
		text, columns = text+s.Palette.Apply(style, name)+"  ", columns+term.Columns(name)+2
	}
	return text, columns
}

func levelStyle(level slog.Level) term.Style {
	switch {
	case level >= slog.LevelError:
		return term.BoldRed
	case level >= slog.LevelWarn:
		return term.Yellow
	case level >= slog.LevelInfo:
		return term.Green
	}
	return term.Dim
}

// minWrapped is the least width of a wrapped text.
const minWrapped = 12

// wrapAfter wraps a text whose first line begins at a column. Further lines will be indented.
func (s Style) wrapAfter(column int, text string) []string {
	if s.Columns == 0 || column+term.Columns(text) <= s.Columns {
		return []string{text}
	}
	if column+minWrapped > s.Columns {
		return append([]string{""}, term.Wrap(text, max(s.Columns-len(indent), minWrapped), "")...)
	}
	// A placeholder word is as wide as the text before.
	before := strings.Repeat("-", column-1)
	lines := term.Wrap(before+" "+text, s.Columns, indent)
	lines[0] = strings.TrimPrefix(strings.TrimPrefix(lines[0], before), " ")
	for i := range lines[1:] {
		lines[i+1] = strings.TrimPrefix(lines[i+1], indent)
	}
	return lines
}

// blocksText returns the long values of a line.
func (s Style) blocksText(blocks []block) string {
	var b strings.Builder
	for _, each := range blocks {
		text := each.text
		if s.CutTracebacks {
			text = cutTraceback(text, s.Dir, s.Columns-len(indent))
		}
		if each.key != "detail" {
			b.WriteString(indent + term.Printable(each.key) + ":\n")
		}
		b.WriteString(indent + strings.ReplaceAll(printableText(text), "\n", "\n"+indent) + "\n")
	}
	return b.String()
}

// printableText is term.Printable for a text of several lines. It also replaces characters that
// change the direction of text, because they could hide part of a line.
func printableText(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ReplaceAll(text, "\r\n", "\n"))
}
