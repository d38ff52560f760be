package protocol

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// fields is the origin of a message in a test.
type fields map[string]any

func (f fields) Properties() triggers.Properties { return nil }
func (f fields) Native() map[string]any          { return f }

// The fields from a source are encoded as JSON, whatever they contain. Python's fromisoformat can read the times.
func TestOriginIsJSON(t *testing.T) {
	at := time.Date(2026, 12, 1, 2, 3, 4, 5_999, time.FixedZone("", 3600))
	all := fields{
		"Id": "m", "DequeueCount": int64(math.MinInt64), "Time": at, "Never": time.Date(9999, 12, 31, 23, 59, 59, 999_999_900, time.UTC),
		"ApplicationProperties": map[string]any{"quote\"\\": "\n\x00\u2028<>", "é": "☃", "broken": "\xff", "f": 1.5, "large": 1e300, "odd": math.NaN(), "inf": math.Inf(-1), "b": true, "deep": map[string]any{}},
		"Bytes":                 []byte("raw"), "Texts": map[string]string{"a": "b"}, "None": nil, "Func": func() {},
	}
	want := map[string]any{
		"Id": "m", "DequeueCount": float64(math.MinInt64), "Time": "2026-12-01T01:03:04.000005+00:00", "Never": "9999-12-31T23:59:59.999999+00:00",
		"ApplicationProperties": map[string]any{"quote\"\\": "\n\x00\u2028<>", "é": "☃", "broken": "\ufffd", "f": 1.5, "large": 1e300, "odd": "NaN", "inf": "-Inf", "b": true, "deep": map[string]any{}},
		"Bytes":                 "cmF3", "Texts": map[string]any{"a": "b"}, "None": nil, "Func": nil,
	}
	text := EncodeOrigin(&triggers.Message{Origin: all})
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %s\nis  %v\nwant %v", err, text, got, want)
	}
	for name, m := range map[string]*triggers.Message{"no origin": {}, "no fields": {Origin: triggers.Known{"content_type": "a"}}} {
		if text := EncodeOrigin(m); text != nil {
			t.Errorf("%s: %s", name, text)
		}
	}
	if text := EncodeOrigin(&triggers.Message{Origin: fields{}}); string(text) != "{}" {
		t.Errorf("of no fields: %s", text)
	}
}
