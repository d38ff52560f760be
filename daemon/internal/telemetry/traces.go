package telemetry

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	// MaxSpans is how many spans wait to be sent, or are being sent. Further ones are dropped.
	MaxSpans = 8192
	// spanBatch is how many are sent together; fewer are sent after spanDelay.
	spanBatch = 512
	spanDelay = time.Second
	// spanLimit bounds the attempts to send a batch; then it is dropped.
	spanLimit = 10 * time.Second
	// spanStopLimit bounds how long a stop waits until the rest has been sent.
	spanStopLimit = 3 * time.Second
	// spanAbsentLimit bounds it if the collector does not accept spans.
	spanAbsentLimit = 500 * time.Millisecond
	// spanPause is the time between two attempts while the collector refuses connections.
	spanPause = 500 * time.Millisecond
	// maxSpanText bounds each text of a span, in bytes.
	maxSpanText = 16 << 10
	// maxCollectorAnswer bounds an answer of a collector, in bytes.
	maxCollectorAnswer = 64 << 10
	// scope is the name of the instrumentation in spans.
	scope = "github.com/drover-run/drover"
)

// TracesConfig has the destination of spans, and the attributes of the service.
type TracesConfig struct {
	URL      string // of OTLP over HTTP, with the path
	Headers  map[string]string
	TLS      *tls.Config       // nil: Go's defaults
	Sample   float64           // the fraction of the traces that begin here, 0 to 1
	Service  string            // the name of the service
	Version  string            // of the program
	Resource map[string]string // further attributes of the service
}

// Traces sends spans to a collector in the background. If the collector hangs or is unreachable,
// spans are dropped and counted; messages are not affected. Its methods are safe for use by many
// goroutines.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	sample   float64
	client   *http.Client
	log      *slog.Logger

	waiting, sent, dropped atomic.Int64
	failing                bool            // used by the goroutine that sends
	accepting              atomic.Bool     // whether the collector has accepted spans, and none failed since
	stopping               atomic.Bool     // set by StopExport
	absentLimit            time.Duration   // spanAbsentLimit, except in tests
	ending                 context.Context // ends the current request
	giveUp                 context.CancelFunc
}

// OpenTraces starts to send spans. It does not connect to the collector. StopExport ends it.
func OpenTraces(ctx context.Context, cfg TracesConfig, log *slog.Logger) (*Traces, error) {
	t := &Traces{sample: cfg.Sample, log: log, absentLimit: spanAbsentLimit}
	// The headers may have a secret, which must not follow a redirect.
	t.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: spanLimit, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	exporter, err := otlptrace.New(ctx, &collector{url: cfg.URL, headers: cfg.Headers, agent: "drover/" + cfg.Version, http: t.client, onFailure: t.sendFailed})
	if err != nil {
		return nil, err
	}
	about, err := describeService(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.ending, t.giveUp = context.WithCancel(context.WithoutCancel(ctx))
	batches := sdktrace.NewBatchSpanProcessor(&spanSender{exporter, t}, sdktrace.WithMaxQueueSize(MaxSpans), sdktrace.WithMaxExportBatchSize(spanBatch),
		sdktrace.WithBatchTimeout(spanDelay), sdktrace.WithExportTimeout(spanLimit))
	limits := sdktrace.SpanLimits{
		AttributeValueLengthLimit: maxSpanText, AttributeCountLimit: sdktrace.DefaultAttributeCountLimit, EventCountLimit: sdktrace.DefaultEventCountLimit,
		LinkCountLimit: sdktrace.DefaultLinkCountLimit, AttributePerEventCountLimit: sdktrace.DefaultAttributePerEventCountLimit, AttributePerLinkCountLimit: sdktrace.DefaultAttributePerLinkCountLimit,
	}
	// The caller of the tracer samples before it starts a span.
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())), sdktrace.WithResource(about),
		sdktrace.WithRawSpanLimits(limits), sdktrace.WithSpanProcessor(&spanQueue{batches, t}))
	t.tracer = t.provider.Tracer(scope, trace.WithInstrumentationVersion(cfg.Version), trace.WithSchemaURL(semconv.SchemaURL))
	log.Info("traces are sent", "to", cfg.URL, "sample", t.sample, "service", cfg.Service)
	return t, nil
}

// describeService returns the attributes of the service, which all spans have.
func describeService(ctx context.Context, cfg TracesConfig) (*resource.Resource, error) {
	var about []attribute.KeyValue
	for name, value := range cfg.Resource {
		about = append(about, attribute.String(name, value))
	}
	about = append(about, semconv.ServiceName(cfg.Service), semconv.ServiceVersion(cfg.Version), semconv.ServiceInstanceID(rand.Text()))
	r, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(), resource.WithAttributes(about...))
	if errors.Is(err, resource.ErrPartialResource) {
		return r, nil // a machine without a host name
	}
	return r, err
}

// Tracer returns the tracer of spans.
func (t *Traces) Tracer() trace.Tracer { return t.tracer }

// SampleRate returns the fraction of the traces that begin here, 0 to 1.
func (t *Traces) SampleRate() float64 { return t.sample }

// SpansSent counts the spans that the collector has accepted.
func (t *Traces) SpansSent() int64 { return t.sent.Load() }

// SpansDropped counts the spans that were dropped.
func (t *Traces) SpansDropped() int64 { return t.dropped.Load() }

// StopExport sends the remaining spans, for at most three seconds, or half a second if the collector
// does not accept them. It may be called once, after the last span has started. It does nothing if t is nil.
func (t *Traces) StopExport() {
	if t == nil {
		return
	}
	limit := time.AfterFunc(spanStopLimit, t.giveUp)
	if t.stopping.Store(true); !t.accepting.Load() {
		t.giveUpIfAbsent()
	}
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

// giveUpIfAbsent stops sending early during a stop, unless the collector accepts spans by then.
func (t *Traces) giveUpIfAbsent() {
	time.AfterFunc(t.absentLimit, func() {
		if !t.accepting.Load() {
			t.giveUp()
		}
	})
}

// sendFailed records that the collector did not accept spans. It is called after each attempt.
func (t *Traces) sendFailed() {
	if t.accepting.Store(false); t.stopping.Load() {
		t.giveUpIfAbsent()
	}
}

// spanQueue counts the spans that wait, and drops those beyond MaxSpans.
type spanQueue struct {
	sdktrace.SpanProcessor
	traces *Traces
}

func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if q.traces.waiting.Add(1) > MaxSpans {
		q.traces.waiting.Add(-1)
		q.traces.dropped.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// spanSender sends batches, one at a time.
type spanSender struct {
	sdktrace.SpanExporter
	traces *Traces
}

// ExportSpans implements sdktrace.SpanExporter. Spans that it cannot send are dropped and counted.
// The first failure is logged, and the first success after it.
func (e *spanSender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	t := e.traces
	defer t.waiting.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ending, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		if t.dropped.Add(int64(len(spans))); !t.failing && t.ending.Err() == nil {
			t.failing = true
			t.log.Warn("cannot send traces; dropping spans until it works", "error", err)
		}
		return nil
	}
	t.accepting.Store(true)
	if t.sent.Add(int64(len(spans))); t.failing {
		t.failing = false
		t.log.Info("sending traces again", "dropped", t.dropped.Load())
	}
	return nil
}
