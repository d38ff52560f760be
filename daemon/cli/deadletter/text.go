package deadletter

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

// This file prints dead letters, without the control characters that they may contain.

const (
	// maxReasonShown is how much of a reason a table has, in characters.
	maxReasonShown = 80
	// maxHexShown is how much of a body that is not text is printed, in bytes.
	maxHexShown = 1 << 10
)

// WriteTable writes a table of dead letters, which fits if to is a terminal.
func WriteTable(to io.Writer, all []triggers.DeadLetter) error {
	columns, _, ok := term.Size(to) // 0, no limit, without a terminal
	t := NewTable(all, ok)
	_, err := io.WriteString(to, strings.Join(t.Lines(columns, term.Palette{}), "\n")+"\n")
	return err
}

// attemptsUsedUp begins the reason of a dead letter that was not rejected by its function. The number is
// in a column of its own.
var attemptsUsedUp = regexp.MustCompile(`^failed (?:\d+ times, the last time with|at its only attempt): `)

// NewTable returns a table with a row for each dead letter. IDs are not shortened, because people copy
// them into the next command. If it is brief, for a terminal, reasons begin with the error.
func NewTable(all []triggers.DeadLetter, brief bool) live.Table {
	t := live.Table{Columns: []live.Column{
		{Title: "id"},
		{Title: "died", Drop: 1},
		{Title: "function", Drop: 4},
		{Title: "attempts", Right: true, Drop: 2},
		{Title: "bytes", Right: true, Drop: 3},
		{Title: "reason", Min: 20},
	}}
	for _, d := range all {
		attempts := "-"
		if d.Message.Attempt > 0 {
			attempts = fmt.Sprint(d.Message.Attempt)
		}
		reason := d.Reason
		if brief {
			reason = attemptsUsedUp.ReplaceAllString(reason, "")
		}
		var row []live.Cell
		for _, text := range []string{
			term.OneLine(d.ID, 80), term.LocalTime(d.Died), term.OrDash(term.OneLine(d.Function, 40)), attempts,
			fmt.Sprint(len(d.Message.Body)), term.OrDash(term.OneLine(reason, maxReasonShown)),
		} {
			row = append(row, live.Cell{Text: text})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// JSONLetter is a dead letter as JSON.
type JSONLetter struct {
	ID         string              `json:"id"`
	Function   string              `json:"function,omitempty"`
	Reason     string              `json:"reason,omitempty"`
	Detail     string              `json:"detail,omitempty"`
	Attempts   int                 `json:"attempts,omitempty"`
	Died       *time.Time          `json:"died,omitempty"`
	Enqueued   *time.Time          `json:"enqueued,omitempty"`
	Message    string              `json:"message,omitempty"` // its ID
	Subject    string              `json:"subject,omitempty"`
	Key        string              `json:"ordering_key,omitempty"`
	Attributes map[string]string   `json:"attributes,omitempty"`
	Repeated   map[string][]string `json:"repeated,omitempty"`
	Properties triggers.Properties `json:"properties,omitempty"`
	// Body is the body if it is text; otherwise BodyBase64 is.
	Body       *string `json:"body,omitempty"`
	BodyBase64 []byte  `json:"body_base64,omitempty"`
}

// MarshalLine returns a dead letter as one line of JSON. drover tune reads such lines.
func MarshalLine(d triggers.DeadLetter) ([]byte, error) {
	m := d.Message
	out := JSONLetter{
		ID: d.ID, Function: d.Function, Reason: d.Reason, Detail: d.Detail, Attempts: m.Attempt, Died: timeOrNil(d.Died), Enqueued: timeOrNil(m.Enqueued),
		Message: m.ID, Subject: m.Subject, Key: m.OrderingKey, Attributes: m.Attributes, Repeated: m.Repeated, Properties: m.Properties(),
	}
	if utf8.Valid(m.Body) {
		body := string(m.Body)
		out.Body = &body
	} else {
		out.BodyBase64 = m.Body
	}
	text, err := messagefile.MarshalLine(out) // a list is such a file
	if err != nil {
		return nil, fmt.Errorf("writing dead letter %s: %w", d.ID, err)
	}
	return text, nil
}

func timeOrNil(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// FullText returns a complete dead letter as text.
func FullText(d triggers.DeadLetter) string {
	var b strings.Builder
	m := d.Message
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-13s %s\n", name, term.OneLine(value, 4096))
		}
	}
	field("id", d.ID)
	field("died", term.LocalTime(d.Died))
	field("function", d.Function)
	if m.Attempt > 0 {
		field("attempts", fmt.Sprint(m.Attempt))
	}
	field("reason", d.Reason)
	field("message", m.ID)
	field("subject", m.Subject)
	field("ordering key", m.OrderingKey)
	field("enqueued", term.LocalTime(m.Enqueued))
	known := m.Properties()
	for _, name := range slices.Sorted(maps.Keys(known)) {
		field("property", name+" = "+known[name])
	}
	for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
		for _, value := range m.Values(name) {
			field("attribute", name+" = "+value)
		}
	}
	if d.Detail != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimRight(term.Printable(d.Detail), "\n"))
	}
	fmt.Fprintf(&b, "\nbody, %d bytes:\n", len(m.Body))
	switch {
	case len(m.Body) == 0:
	case utf8.Valid(m.Body):
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(term.Printable(string(m.Body)), "\n"))
	default:
		b.WriteString(hex.Dump(m.Body[:min(len(m.Body), maxHexShown)]))
		if len(m.Body) > maxHexShown {
			fmt.Fprintf(&b, "... and %d bytes more\n", len(m.Body)-maxHexShown)
		}
	}
	return b.String()
}
