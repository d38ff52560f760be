// Package statustext formats a daemon's reports as text for people: its status, its apps and its
// explanations. The commands status, explain and demo print it. The text has no control
// characters.
package statustext

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// StatusTable returns the status of a daemon as a table, with its problems and advice below it.
// Rates are since last, the report of the interval before; if last is empty, they are since
// the daemon started.
func StatusTable(now, last api.StatusReport, every time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, for %v", now.Phase, time.Since(now.Since).Round(time.Second))
	if i := now.Instances; i != nil {
		fmt.Fprintf(&b, "; instances: %d ready, %d starting, %d draining", i.Ready, i.Starting, i.Draining)
		if i.Failing != "" {
			fmt.Fprintf(&b, "; %s", i.Failing)
		}
	}
	if r := now.Reload; r != nil && r.Refused != "" {
		line, _, _ := strings.Cut(term.Printable(r.Refused), "\n")
		fmt.Fprintf(&b, "; the reload of %s was refused: %s", r.At.Local().Format(time.TimeOnly), line)
	}
	b.WriteString("\n")
	before := make(map[string]api.FunctionOverview)
	seconds := max(time.Since(now.Since), time.Second).Seconds()
	for _, f := range last.Functions {
		before[f.Name] = f
		seconds = every.Seconds()
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "function\thandler\tkind\twaiting\toldest\tin flight\tdone/s\tp50\tp99\tworkers\tfailed\tdead\t")
	for _, f := range now.Functions {
		backlog, oldest, workers := "?", "-", "-"
		if f.Backlog != nil {
			backlog = fmt.Sprint(*f.Backlog)
		}
		if f.Oldest > 0 {
			oldest = term.ShortDuration(time.Duration(f.Oldest * float64(time.Second)))
		}
		if f.Workers > 0 {
			workers = fmt.Sprint(f.Workers)
		}
		switch {
		case f.Stopped:
			workers = "stopped"
		case f.Paused:
			workers = "paused"
		}
		recent := f.Latency
		if recent == nil {
			recent = new(telemetry.Latencies)
		}
		recent = recent.Since(before[f.Name].Latency)
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%.1f\t%s\t%s\t%s\t%d\t%d\t\n", f.Name, f.Handler, f.Kind.Words(), backlog, oldest, f.InFlight,
			float64(f.Done-before[f.Name].Done)/seconds, term.ShortDuration(recent.Quantile(0.5)), term.ShortDuration(recent.Quantile(0.99)), workers, f.Failed, f.Rejected)
	}
	_ = w.Flush()
	for _, p := range now.Problems {
		fmt.Fprintln(&b, p.OneLine())
	}
	for _, f := range now.Functions {
		if !f.Disconnected.IsZero() {
			line, _, _ := strings.Cut(f.ReceiveError, "\n")
			fmt.Fprintf(&b, "function %s: its source has been unreachable for %v%s\n", f.Name, time.Since(f.Disconnected).Round(time.Second), reasonText(line))
		}
		if !f.NextDue.IsZero() {
			fmt.Fprintf(&b, "function %s: its timer is due at %s, in %v\n", f.Name, f.NextDue.Format("2006-01-02 15:04:05 -07:00"), time.Until(f.NextDue).Round(time.Second))
		}
		for _, p := range f.Problems {
			line, _, _ := strings.Cut(p.OneLine(), "\n")
			fmt.Fprintf(&b, "function %s: %s\n", f.Name, line)
		}
	}
	for _, a := range now.Apps {
		fmt.Fprintln(&b, AppText(a))
	}
	for _, advice := range now.Advice {
		line, _, _ := strings.Cut(advice, "\n")
		fmt.Fprintln(&b, line)
	}
	return term.Printable(b.String())
}

// maxUndone bounds the text of a reverted change, in characters.
const maxUndone = 1000

// reasonText returns a reason to append, or nothing if it is empty.
func reasonText(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// AppText returns an app as one line, and a line for each change of its settings that was reverted.
func AppText(a api.AppOverview) string {
	part := func(n int, one, many string) string {
		if n != 1 {
			one = many
		}
		if slices.Contains(a.Auto, many) {
			return fmt.Sprintf("%d %s (auto)", n, one)
		}
		return fmt.Sprintf("%d %s", n, one)
	}
	text := fmt.Sprintf("app %s: %s, %s and %s each", a.Name, part(a.Processes, "process", "processes"), part(a.Threads, "thread", "threads"), part(a.Coroutines, "coroutine", "coroutines"))
	if len(a.Auto) > 0 {
		text += "; " + a.Phase
		if a.Note != "" {
			text += ": " + a.Note
		}
	}
	for _, u := range a.Undone {
		text += "\n  undone: " + term.OneLine(u.Text, maxUndone)
	}
	return text
}

// ExplanationText returns an explanation as text of several lines.
func ExplanationText(e api.Explanation) string {
	var b strings.Builder
	switch {
	case e.Message != "" && e.Function != "":
		fmt.Fprintf(&b, "message %s of function %s", e.Message, e.Function)
	case e.Message != "":
		fmt.Fprintf(&b, "message %s", e.Message)
	default:
		fmt.Fprintf(&b, "function %s", e.Function)
	}
	if e.Instance > 0 {
		fmt.Fprintf(&b, " in instance %d", e.Instance)
	}
	fmt.Fprintf(&b, ": %s\n  %s\n", strings.ReplaceAll(e.State, "_", " "), term.IndentLines(e.Text))
	for _, note := range e.Notes {
		fmt.Fprintf(&b, "  - %s\n", term.IndentLines(note))
	}
	return term.Printable(b.String())
}
