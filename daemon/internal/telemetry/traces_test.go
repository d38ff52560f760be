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
