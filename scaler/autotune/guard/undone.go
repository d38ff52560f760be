package guard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// Level is the state that calls run under.
type Level struct {
	pool.Settings
	// Isolated are the functions that were moved off the event loop: their names, sorted, separated
	// by commas.
	Isolated string
}

func (l Level) isolatedFunctions() []string {
	if l.Isolated == "" {
		return nil
	}
	return strings.Split(l.Isolated, ",")
}

// isRiskier reports whether a change from one level to the other may break code that worked.
func isRiskier(from, to Level) bool {
	return to.Processes > from.Processes || to.Coroutines > from.Coroutines || to.Isolated != from.Isolated || to.Threads > from.Threads || to.Threads == 1 && from.Threads > 1
}

// isBelow reports whether the guard could return from r to b, and so avoid the failures of r.
func isBelow(b, r Level) bool {
	return isRiskier(b, r) && b.Processes <= r.Processes && b.Coroutines <= r.Coroutines && (b.Threads <= r.Threads || r.Threads == 1)
}

// Undone is a change that is reverted because calls failed under it.
type Undone struct {
	// Setting is processes, threads or coroutines, or "on_blocked" if a function was moved off the
	// event loop.
	Setting string `json:"setting"`
	// Value is the bound of the setting while reverted: the largest value, or with AtLeast the
	// smallest.
	Value   int  `json:"value,omitempty"`
	AtLeast bool `json:"at_least,omitempty"`
	// Tried is the value under which calls failed.
	Tried int `json:"tried,omitempty"`
	// Moved is the function that was moved, if Setting is on_blocked.
	Moved string `json:"moved,omitempty"`
	// Function is the function whose calls failed, Error the error of one of them, and Kind the
	// Error without the parts that vary; "" is all errors.
	Function string `json:"function"`
	Error    string `json:"error"`
	Kind     string `json:"kind"`
	// Rate is the fraction of its calls that failed.
	Rate float64 `json:"rate"`
	// Proved reports that calls succeeded after the change was reverted; until then it is checked.
	Proved bool `json:"proved"`

	until      time.Duration // time of the next try; 0 is never
	seen, pass float64       // failures without the change, and successful calls since the first of them
}

// Key returns the setting with which a user keeps the change reverted for good.
func (u Undone) Key() string {
	if u.Setting == settingBlocked {
		return "on_blocked: warn"
	}
	return fmt.Sprintf("%s: %d", u.Setting, u.Value)
}

// likeliestChange returns the change to revert if several were made at once. The others are tried
// again one at a time, and reverted, too, if calls fail then.
func likeliestChange(changes []Undone, async bool) []Undone {
	order := []string{settingBlocked, pool.Threads.String(), pool.Coroutines.String(), pool.Processes.String()}
	if async {
		order[1], order[2] = order[2], order[1]
	}
	for _, setting := range order {
		if i := slices.IndexFunc(changes, func(u Undone) bool { return u.Setting == setting }); i >= 0 {
			return changes[i : i+1]
		}
	}
	return nil
}

// Text returns a description in one or two sentences.
func (u Undone) Text() string {
	text := fmt.Sprintf("%s: back to %d from %d", u.Setting, u.Value, u.Tried)
	if u.Setting == settingBlocked {
		text = fmt.Sprintf("%s runs on the event loop again, and not apart", u.Moved)
	}
	if !u.Proved {
		return text + fmt.Sprintf(", while drover checks whether the change made calls of %s fail: %s", u.Function, u.Error)
	}
	return text + fmt.Sprintf(", since calls of %s failed right after the change and passed without it: %s. To keep it so, set %s", u.Function, strings.TrimRight(u.Error, ". "), u.Key())
}

const settingBlocked = "on_blocked"

// changesBetween returns the changes from a good level to a bad one, each with the failures of u.
func (u Undone) changesBetween(bad, good Level) (out []Undone) {
	for _, d := range pool.Dims {
		if was, is := bad.Get(d), good.Get(d); was != is {
			change := u
			change.Setting, change.Value, change.Tried, change.AtLeast = d.String(), is, was, is > was
			out = append(out, change)
		}
	}
	for _, name := range bad.isolatedFunctions() {
		if !slices.Contains(good.isolatedFunctions(), name) {
			change := u
			change.Setting, change.Moved = settingBlocked, name
			out = append(out, change)
		}
	}
	return out
}

// isWithout reports whether a level is without the reverted change.
func (u Undone) isWithout(l Level) bool {
	for _, d := range pool.Dims {
		if u.Setting == d.String() {
			return u.AtLeast && l.Get(d) >= u.Value || !u.AtLeast && l.Get(d) <= u.Value
		}
	}
	return !slices.Contains(l.isolatedFunctions(), u.Moved)
}

// FailureKind returns an error without the parts that vary: numbers, words with digits, and quoted
// text. It reads one line, and returns at most about 160 bytes.
func FailureKind(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	var out strings.Builder
	var quote rune
	word := func(r rune) bool {
		return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
	}
	runes := []rune(text)
	for i := 0; i < len(runes) && out.Len() < 160; i++ {
		r := runes[i]
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case (r == '\'' || r == '"' || r == '`') && slices.Contains(runes[i+1:], r) && (i == 0 || !word(runes[i-1])):
			quote = r
			out.WriteRune('…')
		case word(r):
			end := i
			for end < len(runes) && word(runes[end]) {
				end++
			}
			if w := string(runes[i:end]); strings.ContainsAny(w, "0123456789") {
				out.WriteRune('#')
			} else {
				out.WriteString(w)
			}
			i = end - 1
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
