package deadletter

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

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
