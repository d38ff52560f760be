package deadletter

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

// hostile has characters that control a terminal.
const hostile = "\x1b[2Jred\u009b31m\nline"

func TestTexts(t *testing.T) {
	letter := triggers.DeadLetter{ID: "1\x1b[2J", Reason: hostile, Detail: hostile, Function: hostile,
		Message: triggers.Message{Body: []byte(hostile), Attributes: map[string]string{hostile: hostile}, Subject: hostile, ID: hostile}}
	raw := regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f]")
	text := FullText(letter)
	if raw.MatchString(text) {
		t.Errorf("%q", text)
	}
	var table strings.Builder
	if err := WriteTable(&table, []triggers.DeadLetter{letter}); err != nil || raw.MatchString(table.String()) || strings.Count(table.String(), "\n") != 2 {
		t.Errorf("%q, %v", table.String(), err)
	}
	object, err := MarshalLine(letter)
	var back JSONLetter
	if err != nil || raw.MatchString(strings.TrimSuffix(string(object), "\n")) || json.Unmarshal(object, &back) != nil || back.Reason != hostile || back.Body == nil || *back.Body != hostile {
		t.Errorf("%q, %v", object, err)
	}
	letter.Message.Body = make([]byte, maxHexShown+5)
	letter.Message.Body[0] = 0xff
	if text := FullText(letter); !strings.Contains(text, "ff 00 00") || !strings.Contains(text, "... and 5 bytes more") {
		t.Errorf("%q", text)
	}
}

// People copy IDs from the table into the next command, so a narrow terminal leaves out other columns. What
// is left of the reason is the error.
func TestTableOfANarrowTerminal(t *testing.T) {
	id := "ab4a55db-dd98-4cdf-9a73-2096a1938c8b"
	all := []triggers.DeadLetter{
		{ID: id, Function: "doomed", Died: time.Now(), Reason: "failed 3 times, the last time with: ValueError: cannot do x (try 3)", Message: triggers.Message{Attempt: 3}},
		{ID: "17", Function: "doomed", Died: time.Now(), Reason: "failed at its only attempt: KeyError: 'id'", Message: triggers.Message{Attempt: 1}},
	}
	for _, columns := range []int{60, 80, 100, 160} {
		table := NewTable(all, true)
		lines := table.Lines(columns, term.Palette{})
		for _, line := range lines {
			if term.Columns(line) > columns {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
		if text := strings.Join(lines, "\n"); !strings.Contains(text, id) || !strings.Contains(text, " ValueError: cannot") || !strings.Contains(text, " KeyError: 'id'") {
			t.Errorf("%d columns: %s", columns, text)
		}
	}
	table := NewTable(all, false)
	if text := strings.Join(table.Lines(0, term.Palette{}), "\n"); !strings.Contains(text, all[0].Reason) || !strings.Contains(text, all[1].Reason) {
		t.Error(text)
	}
}
