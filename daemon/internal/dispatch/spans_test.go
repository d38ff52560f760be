package dispatch

import (
	"context"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/drover-run/drover/triggers"
)

// The trace context of the senders in these tests.
const (
	traceID    = "0af7651916cd43dd8448eb211c80319c"
	parentSpan = "b7ad6b7169203331"
	sampled    = "00-" + traceID + "-" + parentSpan + "-01"
	unsampled  = "00-" + traceID + "-" + parentSpan + "-00"
)

// recordingTracer returns a tracer whose spans are recorded and dropped.
func recordingTracer(t *testing.T) trace.Tracer {
	provider := sdktrace.NewTracerProvider()
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer("test")
}

// Messages with a trace follow their sender's decision; of the others, the configured fraction is
// traced. Untraced messages cost no allocation.
func TestSampling(t *testing.T) {
	tracer := recordingTracer(t)
	for name, test := range map[string]struct {
		sample     float64
		attributes map[string]string
		want       bool
		parent     bool
	}{
		"no trace, all":            {1, nil, true, false},
		"no trace, none":           {0, map[string]string{"a": "b"}, false, false},
		"the sender is":            {0, map[string]string{"traceparent": sampled}, true, true},
		"the sender is not":        {1, map[string]string{"traceparent": unsampled}, false, true},
		"as HTTP writes it":        {0, map[string]string{"Traceparent": sampled}, true, true},
		"as Azure writes it":       {0, map[string]string{"Diagnostic-Id": sampled}, true, true},
		"as Azure wrote it":        {0, map[string]string{"Diagnostic-Id": "|a1b2.c3."}, false, false},
		"of a later version":       {0, map[string]string{"traceparent": "01" + sampled[2:] + "-more"}, true, true},
		"longer than its version":  {0, map[string]string{"traceparent": sampled + "-more"}, false, false},
		"no version":               {0, map[string]string{"traceparent": "ff" + sampled[2:]}, false, false},
		"no trace id":              {0, map[string]string{"traceparent": "00-" + strings.Repeat("0", 32) + "-" + parentSpan + "-01"}, false, false},
		"no hexadecimal":           {1, map[string]string{"traceparent": "00-" + strings.Repeat("x", 32) + "-" + parentSpan + "-01"}, true, false},
		"a flag too many":          {1, map[string]string{"traceparent": sampled[:53] + "0z"}, true, false},
		"short":                    {1, map[string]string{"traceparent": "00-"}, true, false},
		"a tracestate that is odd": {0, map[string]string{"traceparent": sampled, "tracestate": "====\n"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			own := NewSpans(tracer, test.sample, "f", Entity{})
			m, now := &triggers.Message{ID: "1", Attributes: test.attributes}, time.Now()
			trail := own.traceMessage(m, now, now)
			if got := trail != nil; got != test.want {
				t.Errorf("traced: %v, want %v", got, test.want)
			}
			if test.want {
				if parent := trace.SpanContextFromContext(trail.parent); parent.IsRemote() != test.parent || test.parent && parent.TraceID().String() != traceID {
					t.Errorf("the parent is %v", parent)
				}
				return
			}
			if n := testing.AllocsPerRun(100, func() { own.traceMessage(m, now, now) }); n != 0 {
				t.Errorf("what is not traced costs %v allocations", n)
			}
		})
	}
	own, now, n := NewSpans(tracer, 0.1, "f", Entity{}), time.Now(), 0
	for range 2000 {
		if own.traceMessage(new(triggers.Message), now, now) != nil {
			n++
		}
	}
	if n < 100 || n > 400 { // one standard deviation: 200 ± 13
		t.Errorf("%d of 2000 messages are traced, want about a tenth", n)
	}
}
