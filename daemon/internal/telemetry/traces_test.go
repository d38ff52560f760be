package telemetry

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// refusing sends the first requests to a port where no server listens.
type refusing struct {
	*http.Transport
	nowhere string
	times   atomic.Int32
}

func (r *refusing) RoundTrip(request *http.Request) (*http.Response, error) {
	if r.times.Add(-1) >= 0 {
		request = request.Clone(request.Context())
		request.URL.Host = r.nowhere
	}
	return r.Transport.RoundTrip(request)
}

// No span is lost while a collector starts.
func TestCollectorThatStartsLate(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		received <- string(body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	traces, err := OpenTraces(t.Context(), TracesConfig{URL: collector.URL + "/v1/traces", Sample: 1, Service: "shop"}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	late := &refusing{Transport: new(http.Transport), nowhere: nowhere}
	late.times.Store(3)
	traces.client.Transport = late
	_, span := traces.Tracer().Start(t.Context(), "early")
	span.End()
	if body := <-received; !strings.Contains(body, "early") || !strings.Contains(body, "shop") {
		t.Errorf("the collector received %q", body)
	}
	traces.StopExport()
	if late.times.Load() != -1 || traces.SpansSent() != 1 || traces.SpansDropped() != 0 {
		t.Errorf("%d attempts left; %d sent, %d dropped", late.times.Load(), traces.SpansSent(), traces.SpansDropped())
	}
}

// A stop does not wait for a collector that is unreachable or hangs.
func TestAbsentCollectorDoesNotDelayAStop(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	for name, url := range map[string]string{"refuses": nowhere, "hangs": hanging.URL} {
		traces, err := OpenTraces(t.Context(), TracesConfig{URL: url + "/v1/traces", Sample: 1, Service: "shop"}, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		_, span := traces.Tracer().Start(t.Context(), "late")
		span.End()
		begin := time.Now()
		traces.StopExport()
		if took := time.Since(begin); took >= spanStopLimit || traces.SpansDropped() != 1 {
			t.Errorf("a collector that %s: the stop took %v, and dropped %d spans", name, took, traces.SpansDropped())
		}
	}
}

// A stop waits for a collector that has been accepting spans, even if its answer takes longer.
func TestASlowCollectorGetsTheLastSpans(t *testing.T) {
	t.Parallel()
	const absent = time.Millisecond
	var requests atomic.Int32
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if requests.Add(1) == 2 {
			// The time for an absent collector ends while this request is being answered.
			passed := make(chan struct{})
			time.AfterFunc(20*absent, func() { close(passed) })
			<-passed
		}
	}))
	defer collector.Close()
	traces, err := OpenTraces(t.Context(), TracesConfig{URL: collector.URL + "/v1/traces", Sample: 1, Service: "shop"}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	traces.absentLimit = absent
	for _, name := range []string{"first", "second"} {
		_, span := traces.Tracer().Start(t.Context(), name)
		span.End()
		if name == "first" {
			if err := traces.provider.ForceFlush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	traces.StopExport()
	if traces.SpansSent() != 2 || traces.SpansDropped() != 0 {
		t.Errorf("%d spans sent, %d dropped", traces.SpansSent(), traces.SpansDropped())
	}
}
