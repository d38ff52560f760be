package triggers

import (
	"maps"
	"testing"
)

func TestAMessagesTrace(t *testing.T) {
	const a, b = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
	for name, test := range map[string]struct {
		given         map[string]string
		parent, state string
		moved         map[string]string // to the context b, with the state s
	}{
		"none":      {nil, "", "", map[string]string{"traceparent": b, "tracestate": "s"}},
		"others":    {map[string]string{"x": "y"}, "", "", map[string]string{"x": "y", "traceparent": b, "tracestate": "s"}},
		"W3C":       {map[string]string{"traceparent": a, "tracestate": "c"}, a, "c", map[string]string{"traceparent": b, "tracestate": "s"}},
		"HTTP":      {map[string]string{"Traceparent": a, "Tracestate": "c"}, a, "c", map[string]string{"traceparent": b, "tracestate": "s"}},
		"Azure":     {map[string]string{"Diagnostic-Id": a}, a, "", map[string]string{"Diagnostic-Id": b, "traceparent": b, "tracestate": "s"}},
		"old Azure": {map[string]string{"Diagnostic-Id": "|a.b."}, "", "", map[string]string{"Diagnostic-Id": b, "traceparent": b, "tracestate": "s"}},
		"a state":   {map[string]string{"tracestate": "c"}, "", "", map[string]string{"traceparent": b, "tracestate": "s"}},
	} {
		m := &Message{ID: "1", Attributes: maps.Clone(test.given)}
		if parent, state := m.Trace(); parent != test.parent || state != test.state {
			t.Errorf("%s: %q, %q; want %q, %q", name, parent, state, test.parent, test.state)
		}
		if moved := m.WithTrace(b, "s"); !maps.Equal(moved.Attributes, test.moved) || moved.ID != "1" {
			t.Errorf("%s: moved to %v, want %v", name, moved.Attributes, test.moved)
		}
		if !maps.Equal(m.Attributes, test.given) {
			t.Errorf("%s: the message was changed: %v", name, m.Attributes)
		}
		if moved := m.WithTrace(b, ""); moved.Attributes["tracestate"] != "" {
			t.Errorf("%s: a state of another context is left: %v", name, moved.Attributes)
		}
	}
}
