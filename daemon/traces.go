package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	nethttp "net/http"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/daemon/internal/tlsconfig"
)

// This file sends spans to a collector, beside the messages' way: a collector that
// hangs or is away costs spans, which are counted, and nothing else. What spans there
// are is in spans.go.

const (
	// maxSpans is how many wait to be sent, or are on their way; more are dropped.
	maxSpans = 8192
	// spanBatch is how many go together, spanDelay how long fewer wait for company.
	spanBatch = 512
	spanDelay = time.Second
	// spanLimit is how long a batch is tried, until it is dropped.
	spanLimit = 10 * time.Second
	// spanStopLimit is how long a stop waits for what is left to be sent.
	spanStopLimit = 3 * time.Second
	// spanPause is the time between two tries where nobody listens.
	spanPause = 500 * time.Millisecond
	// maxSpanText bounds each of a span's texts, in bytes.
	maxSpanText = 16 << 10
	// maxCollectorAnswer bounds what a collector answers, in bytes.
	maxCollectorAnswer = 64 << 10
)

// traces is where a daemon's spans go.
type traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	sample   float64
	client   *nethttp.Client
	log      *slog.Logger

	waiting, sent, dropped atomic.Int64
	failing                bool            // used by the one goroutine that sends
	ending                 context.Context // ends what is being sent
	giveUp                 context.CancelFunc
}

// openTraces makes what a configuration asks for; nil where nothing is traced. It
// asks nothing of the collector.
func openTraces(ctx context.Context, cfg configs.Traces, log *slog.Logger) (*traces, error) {
	if cfg.URL == "" {
		return nil, nil
	}
	tls, err := tlsconfig.ForClient(cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	t := &traces{sample: *cfg.Sample, log: log}
	// What a collector answers to is not to be sent elsewhere, with its headers.
	t.client = &nethttp.Client{
		Transport:     &nethttp.Transport{TLSClientConfig: tls, TLSHandshakeTimeout: spanLimit, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
		CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse },
	}
	headers := make(map[string]string)
	for name, value := range cfg.Headers {
		headers[name] = string(value)
	}
	// All is said here, so that the library's own look into the environment changes
	// nothing.
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(cfg.URL), otlptracehttp.WithHeaders(headers), otlptracehttp.WithHTTPClient(t.client),
		otlptracehttp.WithTLSClientConfig(nil), otlptracehttp.WithCompression(otlptracehttp.NoCompression), otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithTimeout(spanLimit), otlptracehttp.WithMaxResponseSize(maxCollectorAnswer),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: spanPause, MaxInterval: spanLimit, MaxElapsedTime: spanLimit}),
	)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := describeService(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	t.ending, t.giveUp = context.WithCancel(context.WithoutCancel(ctx))
	batches := sdktrace.NewBatchSpanProcessor(&spanExporter{exporter, t}, sdktrace.WithMaxQueueSize(maxSpans), sdktrace.WithMaxExportBatchSize(spanBatch),
		sdktrace.WithBatchTimeout(spanDelay), sdktrace.WithExportTimeout(spanLimit))
	limits := sdktrace.SpanLimits{
		AttributeValueLengthLimit: maxSpanText, AttributeCountLimit: sdktrace.DefaultAttributeCountLimit, EventCountLimit: sdktrace.DefaultEventCountLimit,
		LinkCountLimit: sdktrace.DefaultLinkCountLimit, AttributePerEventCountLimit: sdktrace.DefaultAttributePerEventCountLimit, AttributePerLinkCountLimit: sdktrace.DefaultAttributePerLinkCountLimit,
	}
	// What is sampled is decided before a span is made: see spans.received.
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())), sdktrace.WithResource(about),
		sdktrace.WithRawSpanLimits(limits), sdktrace.WithSpanProcessor(&spanQueue{batches, t}))
	t.tracer = t.provider.Tracer(scope, trace.WithInstrumentationVersion(buildinfo.Version()), trace.WithSchemaURL(semconv.SchemaURL))
	log.Info("traces are sent", "to", cfg.URL, "sample", t.sample, "service", cfg.ServiceName)
	return t, nil
}

// scope is the name that spans have for what made them.
const scope = "github.com/drover-run/drover"

// describeService is what all spans say of the daemon.
func describeService(ctx context.Context, cfg configs.Traces) (*resource.Resource, error) {
	var about []attribute.KeyValue
	for name, value := range cfg.Resource {
		about = append(about, attribute.String(name, value))
	}
	about = append(about, semconv.ServiceName(cfg.ServiceName), semconv.ServiceVersion(buildinfo.Version()), semconv.ServiceInstanceID(rand.Text()))
	r, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(), resource.WithAttributes(about...))
	if errors.Is(err, resource.ErrPartialResource) {
		return r, nil // a machine without a name
	}
	return r, err
}

// stop sends what is left, for as long as that takes, a little while at most.
func (t *traces) stop() {
	if t == nil {
		return
	}
	limit := time.AfterFunc(spanStopLimit, t.giveUp)
	if err := t.provider.Shutdown(context.Background()); err != nil { // giveUp ends it
		t.log.Debug("closing the traces", "error", err)
	}
	limit.Stop()
	t.giveUp()
	t.client.CloseIdleConnections()
	if n := t.dropped.Load(); n > 0 {
		t.log.Warn("spans were dropped since the daemon started", "dropped", n, "sent", t.sent.Load())
	}
}

// spanQueue bounds and counts the spans that wait.
type spanQueue struct {
	sdktrace.SpanProcessor
	traces *traces
}

func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if q.traces.waiting.Add(1) > maxSpans {
		q.traces.waiting.Add(-1)
		q.traces.dropped.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// spanExporter sends batches, one at a time.
type spanExporter struct {
	sdktrace.SpanExporter
	traces *traces
}

// ExportSpans implements sdktrace.SpanExporter. What it cannot send is dropped, counted,
// and said once.
func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	t := e.traces
	defer t.waiting.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ending, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	for errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
		// A collector that is started anew is there soon.
		wait(ctx, spanPause)
		if ctx.Err() == nil {
			err = e.SpanExporter.ExportSpans(ctx, spans)
		}
	}
	if err != nil {
		if t.dropped.Add(int64(len(spans))); !t.failing && t.ending.Err() == nil {
			t.failing = true
			t.log.Warn("cannot send traces; dropping spans until it works", "error", err)
		}
		return nil
	}
	if t.sent.Add(int64(len(spans))); t.failing {
		t.failing = false
		t.log.Info("sending traces again", "dropped", t.dropped.Load())
	}
	return nil
}
