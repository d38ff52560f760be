package live

import (
	"reflect"
	"testing"
)

func TestParseKeys(t *testing.T) {
	for text, want := range map[string][]Key{
		"q":                    {"q"},
		"\x1b[A\x1bOBj":        {KeyUp, KeyDown, "j"},
		"\x1b":                 {KeyEscape},
		"\x1b[5~\x1b[6~":       {KeyPageUp, KeyPageDown},
		"\x1b[1;5A":            nil, // ctrl-up: not used
		"\x1b[200~ab":          {"a", "b"},
		"ü注\r\x7f\x03":         {"ü", "注", KeyEnter, KeyBackspace, KeyInterrupt},
		"\x1b[H\x1b[F\x00\xff": {KeyHome, KeyEnd},
		"\x1b[":                {KeyEscape, "["},
	} {
		if got := parseKeys([]byte(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
