// Package statustext formats a daemon's reports as text: its status, its apps and its
// explanations. The commands status, explain and demo print it. The text has no control
// characters, except for the styles of a palette.
package statustext

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
)

// maxUndone bounds the text of a reverted change, in characters.
const maxUndone = 1000

// AppText returns an app as one line, and a line for each change of its settings that was reverted.
func AppText(a api.AppOverview) string { return appText(a, ShortApp(a.Name)) }

func appText(a api.AppOverview, name string) string {
	part := func(n int, one, many string) string {
		if n != 1 {
			one = many
		}
		if slices.Contains(a.Auto, many) {
			if many == "processes" && n > 1 { // the load decides how many of them run
				return fmt.Sprintf("up to %d %s (auto)", n, one)
			}
			return fmt.Sprintf("%d %s (auto)", n, one)
		}
		return fmt.Sprintf("%d %s", n, one)
	}
	text := fmt.Sprintf("app %s: %s, %s and %s each", name, part(a.Processes, "process", "processes"), part(a.Threads, "thread", "threads"), part(a.Coroutines, "coroutine", "coroutines"))
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

// ShortApp returns the display name of an app: the last part of its path.
func ShortApp(name string) string {
	if path := strings.TrimRight(name, "/"); strings.HasPrefix(name, "/") && path != "" {
		return path[strings.LastIndex(path, "/")+1:]
	}
	return name
}

// states are the states of functions and messages, as predicates. A state that is not listed is its own
// predicate.
var states = map[string]string{
	"full": "is at its limit", "no_worker": "waits for a worker", "app_down": "cannot receive", "memory": "cannot receive", "unreachable": "cannot receive",
	"in_flight": "is in flight", "stuck": "cannot be settled", "retry": "waits for its next attempt", "ready": "waits at its source", "held": "waits in drover",
	"later": "is scheduled for later", "leased": "is delivered", "spent": "has used up its deliveries", "dead": "is a dead letter", api.StateUnknown: "was not found",
}

// ExplanationText returns an explanation as text of several lines. The first line is one or two
// sentences. verbose adds the details.
func ExplanationText(e api.Explanation, verbose bool) string {
	subject := "function " + e.Function
	if e.Message != "" {
		subject = "message " + e.Message
		if e.Function != "" {
			subject += " of function " + e.Function
		}
	}
	if e.Instance > 0 {
		subject += fmt.Sprintf(" in instance %d", e.Instance)
	}
	var b strings.Builder
	predicate := cmp.Or(states[e.State], "is "+e.State)
	fmt.Fprintf(&b, "%s %s. %s\n", upperFirst(subject), predicate, term.IndentLines(upperFirst(e.Text)))
	notes := e.Notes
	if verbose {
		notes = append(slices.Clone(notes), e.Details...)
	}
	for _, note := range notes {
		fmt.Fprintf(&b, "  - %s\n", term.IndentLines(note))
	}
	return term.Printable(b.String())
}

// upperFirst returns a text with a capital first letter.
func upperFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if first == utf8.RuneError {
		return text
	}
	return string(unicode.ToUpper(first)) + text[size:]
}
