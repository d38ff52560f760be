package telemetry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Spans arrive in the encoding that OTLP requires, and each answer of a collector has the right effect.
func TestCollectorAnswers(t *testing.T) {
	t.Parallel()
	encode := func(m proto.Message) string {
		text, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	partial := func(rejected int64, message string) string {
		return encode(&collectorpb.ExportTraceServiceResponse{
			PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: message},
		})
	}
	for _, c := range []struct {
		name, body string
		status     int
		header     string // Retry-After
		want       string // of the error; empty: none
		requests   int
	}{
		{"accepted", encode(&collectorpb.ExportTraceServiceResponse{}), 200, "", "", 1},
		{"no body", "", 202, "", "", 1},
		{"some rejected", partial(3, "too old"), 200, "", "the collector rejected 3 spans: too old", 1},
		{"a warning", partial(0, "slow down"), 200, "", "accepted the spans with a warning: slow down", 1},
		{"not protobuf", "\xff", 200, "", "decoding the collector's answer", 1},
		{"cut off", partial(3, "too old")[:6], 200, "", "decoding the collector's answer", 1},
		{"refused", "no such tenant\n", 400, "", "/v1/traces answered 400 Bad Request: no such tenant", 1},
		{"a redirect", "", 307, "", "answered 307 Temporary Redirect", 1},
		{"too long", strings.Repeat("x", maxCollectorAnswer+1), 200, "", "is longer than 65536 bytes", 1},
		{"overloaded for longer than the limit", "", 503, "3600", "answered 503 Service Unavailable", 1},
		{"overloaded once", "", 429, "0", "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				body, err := io.ReadAll(r.Body)
				received := new(collectorpb.ExportTraceServiceRequest)
				if err == nil {
					err = proto.Unmarshal(body, received)
				}
				if err != nil || len(received.ResourceSpans) != 1 || received.ResourceSpans[0].SchemaUrl != "a schema" {
					t.Errorf("received %v: %v", received, err)
				}
				if r.Header.Get("Tenant") != "shop" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("User-Agent") != "drover/1" {
					t.Errorf("the headers are %v", r.Header)
				}
				w.Header().Set("Content-Type", "application/x-protobuf")
				w.Header().Set("Location", "/elsewhere")
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				if c.name == "overloaded once" && requests == 2 {
					return
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer server.Close()
			client := server.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			spans := &collector{url: server.URL + "/v1/traces", headers: map[string]string{"Tenant": "shop"}, agent: "drover/1", http: client}
			err := spans.UploadTraces(t.Context(), []*tracepb.ResourceSpans{{SchemaUrl: "a schema"}})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
			if requests != c.requests {
				t.Errorf("%d requests, want %d", requests, c.requests)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	in := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	if got := retryAfter(in); got < 59*time.Minute || got > time.Hour {
		t.Errorf("%s is %v", in, got)
	}
	for header, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "Mon, 02 Jan 2006 15:04:05 GMT": 0} {
		if got := retryAfter(header); got != want {
			t.Errorf("%q is %v, want %v", header, got, want)
		}
	}
}
