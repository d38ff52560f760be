package autotune

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

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

// likeliest returns the change to revert if several were made at once. The others are tried again
// one at a time, and reverted, too, if calls fail then.
func likeliest(changes []Undone, async bool) []Undone {
	order := []string{settingBlocked, threads.String(), coroutines.String(), processes.String()}
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

// changes returns the settings that a check has reverted.
func (c *check) changes() (out []Undone) {
	for _, d := range dims {
		if was, is := c.bad.get(d), c.good.get(d); was != is {
			u := c.Undone
			u.Setting, u.Value, u.Tried, u.AtLeast = d.String(), is, was, is > was
			out = append(out, u)
		}
	}
	for _, name := range c.bad.isolated() {
		if !slices.Contains(c.good.isolated(), name) {
			u := c.Undone
			u.Setting, u.Moved = settingBlocked, name
			out = append(out, u)
		}
	}
	return out
}

// holds reports whether a level is without the reverted change.
func (u Undone) holds(l Level) bool {
	for _, d := range dims {
		if u.Setting == d.String() {
			return u.AtLeast && l.get(d) >= u.Value || !u.AtLeast && l.get(d) <= u.Value
		}
	}
	return !slices.Contains(l.isolated(), u.Moved)
}

// within narrows the bounds by the reverted changes.
func (g *guard) within(b Bounds) Bounds {
	for _, u := range g.undone {
		for _, d := range dims {
			value := min(max(u.Value, b.Least.get(d)), b.Most.get(d))
			switch {
			case u.Setting != d.String():
			case u.AtLeast:
				b.Least = b.Least.with(d, value)
			default:
				b.Most = b.Most.with(d, value)
			}
		}
	}
	for _, d := range dims { // if one is a lower bound and another an upper bound
		b.Most = b.Most.with(d, max(b.Most.get(d), b.Least.get(d)))
	}
	return b
}

// all returns the reverted changes, including those that are being checked.
func (g *guard) all() []Undone {
	out := slices.Clone(g.undone)
	if g.check != nil {
		out = append(out, g.check.changes()...)
	}
	slices.SortStableFunc(out, func(a, b Undone) int { return cmp.Compare(a.Setting, b.Setting) })
	return out
}

// lasting returns those to keep across restarts.
func (g *guard) lasting() (out []Undone) {
	for _, u := range g.undone {
		if u.until == 0 {
			out = append(out, u)
		}
	}
	return out
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
