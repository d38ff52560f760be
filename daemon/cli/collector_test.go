package cli

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector receives spans by OTLP over HTTP, as OpenTelemetry's own collector does.
type collector struct {
	url    string
	server *httptest.Server

	mu       sync.Mutex
	requests int
	header   http.Header // of the latest request
	resource map[string]any
	spans    []*tracepb.Span
	more     chan struct{}
}

// collect runs a collector until the test ends. answer, if it is not nil, is called first.
func collect(t *testing.T, answer http.HandlerFunc) *collector {
	t.Helper()
	c := &collector{more: make(chan struct{}, 1)}
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer c.arrived()
		c.mu.Lock()
		c.requests++
		c.header = r.Header
		c.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		request := new(collectorpb.ExportTraceServiceRequest)
		if err == nil {
			err = proto.Unmarshal(body, request)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s of %s: %v", r.Method, r.URL.Path, r.Header.Get("Content-Type"), err)
		}
		c.take(request)
		w.Header().Set("Content-Type", "application/x-protobuf")
		out, err := proto.Marshal(&collectorpb.ExportTraceServiceResponse{})
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(out)
	}))
	c.url = c.server.URL
	t.Cleanup(c.server.Close)
	return c
}

func (c *collector) arrived() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *collector) take(request *collectorpb.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range request.ResourceSpans {
		c.resource = values(r.Resource.Attributes)
		for _, s := range r.ScopeSpans {
			c.spans = append(c.spans, s.Spans...)
		}
	}
}

func values(attributes []*commonpb.KeyValue) map[string]any {
	out := make(map[string]any)
	for _, a := range attributes {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			out[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[a.Key] = v.IntValue
		case *commonpb.AnyValue_DoubleValue:
			out[a.Key] = v.DoubleValue
		case *commonpb.AnyValue_BoolValue:
			out[a.Key] = v.BoolValue
		}
	}
	return out
}

// span is one span that was received, in a form that tests can compare.
type span struct {
	name, trace, id, parent string
	kind                    tracepb.Span_SpanKind
	failed                  string // the text of its error
	about                   map[string]any
	events                  []map[string]any
	start, end              time.Time
}

// traceparent returns the trace context of the span's children.
func (s span) traceparent() string { return "00-" + s.trace + "-" + s.id + "-01" }

// got returns the spans received so far, by name; those of one name in the order of their starts.
func (c *collector) got() map[string][]span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string][]span)
	for _, s := range c.spans {
		one := span{
			name: s.Name, trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
			kind: s.Kind, about: values(s.Attributes), start: time.Unix(0, int64(s.StartTimeUnixNano)), end: time.Unix(0, int64(s.EndTimeUnixNano)),
		}
		if s.Status != nil && s.Status.Code == tracepb.Status_STATUS_CODE_ERROR {
			one.failed = s.Status.Message
		}
		for _, e := range s.Events {
			one.events = append(one.events, values(e.Attributes))
		}
		out[s.Name] = append(out[s.Name], one)
	}
	for _, of := range out {
		for i := range of { // few: insertion sort
			for j := i; j > 0 && of[j].start.Before(of[j-1].start); j-- {
				of[j], of[j-1] = of[j-1], of[j]
			}
		}
	}
	return out
}

// WaitFor waits for n spans of a name, and returns them.
func (c *collector) WaitFor(t *testing.T, name string, n int) []span {
	t.Helper()
	deadline := time.After(patience)
	for {
		all := c.got()
		if len(all[name]) >= n {
			return all[name]
		}
		select {
		case <-c.more:
		case <-deadline:
			t.Fatalf("%d spans %q, want %d; there are %v", len(all[name]), name, n, all)
		}
	}
}

func (c *collector) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}
