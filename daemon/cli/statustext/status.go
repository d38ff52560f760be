package statustext

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// Status is a status to print. Now is required.
type Status struct {
	Now api.StatusReport
	// Last is the previous report, and Every the time between the two: rates are for this time. If
	// Last is empty, they are since the daemon started.
	Last  api.StatusReport
	Every time.Duration

	Palette term.Palette
	// Widths keeps the widths of the columns from one report to the next; nil for a single report.
	Widths map[string]int
}

// Text returns the status for an output that is not a terminal: nothing is shortened or left out.
func (s Status) Text() string { return strings.Join(s.Lines(0, 0), "\n") + "\n" }

// Lines returns the status for a terminal: a line about the daemon, a table of the functions, and
// their problems, the apps and advice below it. It returns at most rows lines of at most columns each;
// 0 is no limit. If there is not enough room, the last lines are left out.
func (s Status) Lines(columns, rows int) []string {
	table := s.Table()
	lines := append(s.wrap(s.Head(), columns), table.Lines(columns, s.Palette)...)
	return live.CutLines(append(lines, s.Notes(columns)...), rows)
}

// wrap returns a text as lines of at most columns; 0 is no limit. A text may have several lines.
func (s Status) wrap(text string, columns int) (lines []string) {
	for line := range strings.SplitSeq(term.Printable(text), "\n") {
		if columns == 0 {
			lines = append(lines, line)
			continue
		}
		lines = append(lines, term.Wrap(line, columns, "  ")...)
	}
	return lines
}

// Head returns the state of the daemon, in a line.
func (s Status) Head() string {
	now := s.Now
	text := fmt.Sprintf("%s, for %v", now.Phase, time.Since(now.Since).Round(time.Second))
	if i := now.Instances; i != nil {
		text += fmt.Sprintf("; instances: %d ready, %d starting, %d draining", i.Ready, i.Starting, i.Draining)
		if i.Failing != "" {
			text += "; " + i.Failing
		}
	}
	if r := now.Reload; r != nil && r.Refused != "" {
		text += fmt.Sprintf("; the reload of %s was refused: %s", r.At.Local().Format(time.TimeOnly), firstLine(r.Refused))
	}
	return term.Printable(text)
}

// columns are the columns of the table of functions. On a narrow terminal, columns with the highest Drop
// are left out.
var columns = []live.Column{
	{Title: "function", Min: 16, Max: 40},
	{Title: "state", Drop: 1, Min: 18},
	{Title: "waiting", Right: true, Drop: 2},
	{Title: "oldest", Right: true, Drop: 10},
	{Title: "in flight", Right: true, Drop: 4},
	{Title: "done/s", Right: true, Drop: 3},
	{Title: "p50", Right: true, Drop: 9},
	{Title: "p99", Right: true, Drop: 8},
	{Title: "workers", Right: true, Drop: 7},
	{Title: "failed", Right: true, Drop: 6},
	{Title: "dead", Right: true, Drop: 5},
	{Title: "kind", Drop: 11, Max: 30},
	{Title: "handler", Drop: 12, Min: 16},
}

// Table returns a table with a row for each function.
func (s Status) Table() live.Table {
	t := live.Table{Columns: columns, Widths: s.Widths}
	earlier := make(map[string]api.FunctionOverview)
	seconds := max(time.Since(s.Now.Since), time.Second).Seconds()
	for _, f := range s.Last.Functions {
		earlier[f.Name] = f
		seconds = max(s.Every.Seconds(), 1e-3)
	}
	for _, f := range s.Now.Functions {
		before := earlier[f.Name]
		backlog, oldest, workers := "?", "-", "-"
		if f.Backlog != nil {
			backlog = strconv.FormatInt(*f.Backlog, 10)
		}
		if f.Oldest > 0 {
			oldest = term.ShortDuration(time.Duration(f.Oldest * float64(time.Second)))
		}
		if f.Workers > 0 {
			workers = strconv.Itoa(f.Workers)
		}
		recent := cmp.Or(f.Latency, new(telemetry.Latencies)).Since(before.Latency)
		t.Rows = append(t.Rows, []live.Cell{
			{Text: term.OneLine(f.Name, 80), Style: term.Bold}, stateCell(f),
			{Text: backlog}, {Text: oldest}, {Text: strconv.FormatInt(f.InFlight, 10)},
			{Text: fmt.Sprintf("%.1f", float64(f.Done-before.Done)/seconds)},
			{Text: term.ShortDuration(recent.Quantile(0.5))}, {Text: term.ShortDuration(recent.Quantile(0.99))},
			{Text: workers}, countCell(f.Failed, term.Yellow), countCell(f.Rejected, term.Red),
			{Text: f.Kind.Words()}, {Text: handlerText(f.Handler)},
		})
	}
	return t
}

// PlainLines returns a line for each function, for a log.
func (s Status) PlainLines() (lines []string) {
	t := s.Table()
	for _, row := range t.Rows {
		text := func(title string) string {
			return row[slices.IndexFunc(columns, func(c live.Column) bool { return c.Title == title })].Text
		}
		lines = append(lines, fmt.Sprintf("%-7s %s, backlog %s, in flight %s, done %s/s, p50 %s, p99 %s, workers %s, failed %s",
			text("function"), text("kind"), text("waiting"), text("in flight"), text("done/s"), text("p50"), text("p99"), text("workers"), text("failed")))
	}
	return lines
}

// countCell returns a count, in a style if it is not 0.
func countCell(n int64, style term.Style) live.Cell {
	if n == 0 {
		style = term.Plain
	}
	return live.Cell{Text: strconv.FormatInt(n, 10), Style: style}
}

// stateStyles are the styles of states; others are red, because nothing is received.
var stateStyles = map[string]term.Style{
	api.StateReceiving: term.Green, api.StateIdle: term.Dim, api.StateFull: term.Cyan, api.StatePaused: term.Yellow,
	api.PhaseStarting: term.Yellow, api.PhaseStopping: term.Yellow, api.StateMemory: term.Yellow,
}

// stateCell returns the state of a function.
func stateCell(f api.FunctionOverview) live.Cell {
	style, found := stateStyles[f.State]
	if !found {
		style = term.Red
	}
	text := term.OrDash(strings.ReplaceAll(f.State, "_", " ")) // daemons before this version report none
	if f.State == api.StatePaused && !f.PausedUntil.IsZero() {
		text = "paused until " + shortTime(f.PausedUntil, time.Now())
	}
	return live.Cell{Text: text, Style: style}
}

// shortTime returns a time, with the date if it is not today.
func shortTime(at, now time.Time) string {
	at = at.Local()
	if at.Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return at.Format("15:04")
	}
	return at.Format("Jan 2 15:04")
}

// handlerText returns the handler of a function, with its app's name instead of the path.
func handlerText(handler string) string {
	text, app, found := strings.Cut(handler, " in app ")
	if found {
		text += " in app " + ShortApp(app)
	}
	return term.OrDash(term.OneLine(text, 80))
}

// adviceText returns advice with its app's name instead of the path.
func adviceText(advice string) string {
	about, found := strings.CutPrefix(advice, "app ")
	app, text, cut := strings.Cut(about, ": ")
	if !found || !cut {
		return advice
	}
	return "app " + ShortApp(app) + ": " + text
}

// Notes returns the text below the table: why functions receive nothing, their problems, and the apps
// with advice. A line has at most that many columns; 0 is no limit.
func (s Status) Notes(columns int) (lines []string) {
	add := func(style term.Style, text string) {
		for _, line := range s.wrap(text, columns) {
			lines = append(lines, s.Palette.Apply(style, line))
		}
	}
	for _, f := range s.Now.NotRun {
		add(term.Yellow, f.OneLine())
	}
	for _, p := range s.Now.Problems {
		add(term.Red, p.OneLine())
	}
	for _, f := range s.Now.Functions {
		if f.Reason != "" && !IsQuiet(f.State) {
			style := stateCell(f).Style
			add(style, fmt.Sprintf("function %s: %s", f.Name, firstLine(f.Reason)))
		}
		if !f.NextDue.IsZero() {
			add(term.Plain, fmt.Sprintf("function %s: its timer is due at %s, in %v", f.Name, f.NextDue.Format("2006-01-02 15:04:05 -07:00"), time.Until(f.NextDue).Round(time.Second)))
		}
		for _, p := range f.Problems {
			if text := firstLine(p.OneLine()); !strings.HasPrefix(f.Reason, text) { // it is the reason
				add(term.Red, fmt.Sprintf("function %s: %s", f.Name, text))
			}
		}
	}
	for _, a := range s.Now.Apps {
		add(term.Plain, AppText(a))
	}
	for _, advice := range s.Now.Advice {
		add(term.Plain, adviceText(firstLine(advice)))
	}
	return lines
}

// IsQuiet reports whether a function in this state works normally or is idle, so Notes leaves out the
// reason.
func IsQuiet(state string) bool {
	return slices.Contains([]string{api.StateReceiving, api.StateIdle, api.StateFull}, state)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
