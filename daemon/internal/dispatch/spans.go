package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file makes the spans of a message, by OpenTelemetry's conventions for messaging: receive,
// process, send and settle. The dispatcher calls it at each step. docs/traces.md describes them.

// Entity is a queue or a topic, in the terms of the conventions.
type Entity struct {
	System     string
	Name       string               // of low cardinality
	Attributes []attribute.KeyValue // added to each span
	// BySubject is set if the destination of a message is its subject, not Name.
	BySubject bool
	// Disposition returns the source's term for a verdict; nil if it has none.
	Disposition func(triggers.Kind) attribute.KeyValue
}

// Spans makes the spans of one function. Its methods may be called from many goroutines. Those of
// nil, if nothing is traced, do nothing.
type Spans struct {
	tracer     trace.Tracer
	sample     float64 // the fraction of messages without a trace that is traced, 0 to 1
	from       Entity
	attributes []attribute.KeyValue // of each span but those of outputs
}

// NewSpans returns the spans of a function whose messages come from an entity. sample is the
// fraction of the messages without a trace that is traced, 0 to 1.
func NewSpans(tracer trace.Tracer, sample float64, function string, from Entity) *Spans {
	s := &Spans{tracer: tracer, sample: sample, from: from}
	s.attributes = append(s.attributes, semconv.MessagingSystemKey.String(from.System), attribute.String("drover.function", function))
	s.attributes = append(s.attributes, from.Attributes...)
	return s
}

// timeNow returns the time; zero if nothing is traced, without reading the clock.
func (s *Spans) timeNow() (now time.Time) {
	if s != nil {
		now = time.Now()
	}
	return now
}

// messageSpans holds the spans of a message that is traced.
type messageSpans struct {
	*Spans
	attributes []attribute.KeyValue
	parent     context.Context // of process and settle: the message's trace, or the receive span
	process    trace.Span      // nil until the message is handled
}

// traceMessage decides whether a message is traced, and makes the receive span. asked is when the
// message was requested. A message with a trace is traced if its sender's span is sampled; of the
// others a fraction is. If the message is not traced, traceMessage returns nil without an
// allocation.
func (s *Spans) traceMessage(m *triggers.Message, asked, received time.Time) *messageSpans {
	if s == nil {
		return nil
	}
	text, state := m.Trace()
	parent, found := parseParent(text)
	if found && !parent.IsSampled() || !found && rand.Float64() >= s.sample {
		return nil
	}
	if found {
		if states, err := trace.ParseTraceState(state); err == nil {
			parent = parent.WithTraceState(states)
		}
	}
	return s.startTrace(m, parent, asked, received)
}

func (s *Spans) startTrace(m *triggers.Message, parent trace.SpanContext, asked, received time.Time) *messageSpans {
	l := &messageSpans{Spans: s, parent: context.Background()}
	l.attributes = append(l.attributes, s.attributes...)
	name := s.from.Name
	if s.from.BySubject && m.Subject != "" {
		name = m.Subject
	}
	l.attributes = append(l.attributes, semconv.MessagingDestinationName(name), semconv.MessagingMessageID(m.ID),
		semconv.MessagingMessageBodySize(len(m.Body)), attribute.Int("drover.attempt", m.Attempt))
	// The time without any message does not count.
	if m.Enqueued.After(asked) && m.Enqueued.Before(received) {
		asked = m.Enqueued
	}
	if parent.IsValid() {
		l.parent = trace.ContextWithRemoteSpanContext(l.parent, parent)
	}
	ctx, span := l.startSpan(l.parent, semconv.MessagingOperationTypeReceive, trace.SpanKindClient, asked)
	span.End(trace.WithTimestamp(received))
	if !parent.IsValid() {
		l.parent = ctx
	}
	return l
}

// startSpan begins a span of the message.
func (l *messageSpans) startSpan(parent context.Context, operation attribute.KeyValue, kind trace.SpanKind, at time.Time, more ...attribute.KeyValue) (context.Context, trace.Span) {
	what := operation.Value.AsString()
	return l.tracer.Start(parent, what+" "+l.from.Name, trace.WithSpanKind(kind), trace.WithTimestamp(at),
		trace.WithAttributes(l.attributes...), trace.WithAttributes(operation, semconv.MessagingOperationName(what)), trace.WithAttributes(more...))
}

// startProcess begins the process span, and returns a copy of the message with that span in its
// attributes, for handlers in other processes. Go functions get it from withSpan.
func (l *messageSpans) startProcess(m *triggers.Message, at time.Time) *triggers.Message {
	var ctx context.Context
	ctx, l.process = l.startSpan(l.parent, semconv.MessagingOperationTypeProcess, trace.SpanKindConsumer, at)
	return m.WithTrace(formatTrace(trace.SpanContextFromContext(ctx)))
}

// withSpan adds the process span to a context.
func (l *messageSpans) withSpan(ctx context.Context) context.Context {
	return trace.ContextWithSpan(ctx, l.process)
}

// sendSpan is the span of a result; the zero value is no span.
type sendSpan struct{ span trace.Span }

// startSend begins the span of a message to an output, and returns the message with the trace
// context to send. l may be nil.
func (l *messageSpans) startSend(to *Entity, m *triggers.Message, all []outgoing) (*triggers.Message, sendSpan) {
	if l == nil || l.process == nil {
		return m, sendSpan{}
	}
	size := 0
	for _, each := range all {
		size += len(each.body)
	}
	what := semconv.MessagingOperationTypeSend.Value.AsString()
	_, span := l.tracer.Start(trace.ContextWithSpan(context.Background(), l.process), what+" "+to.Name, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(semconv.MessagingSystemKey.String(to.System), semconv.MessagingDestinationName(to.Name), semconv.MessagingOperationTypeSend,
			semconv.MessagingOperationName(what), semconv.MessagingMessageBodySize(size)))
	if len(all) > 1 {
		span.SetAttributes(semconv.MessagingBatchMessageCount(len(all)))
	}
	return m.WithTrace(formatTrace(span.SpanContext())), sendSpan{span}
}

func (s sendSpan) endSend(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		recordError(s.span, err)
	}
	s.span.End()
}

// endProcess ends the process span at judged, the time of the verdict, and makes the settle span,
// which ends at now.
func (l *messageSpans) endProcess(v triggers.Verdict, err error, judged, now time.Time, lost bool) {
	verdict := attribute.String("drover.verdict", v.Kind.String())
	if l.process != nil {
		l.process.SetAttributes(verdict)
		if err != nil {
			recordError(l.process, err)
		}
		l.process.End(trace.WithTimestamp(judged))
	}
	more := []attribute.KeyValue{verdict}
	if v.Kind == triggers.Retry {
		more = append(more, attribute.Float64("drover.retry_delay", v.Delay.Seconds()))
	}
	if l.from.Disposition != nil {
		more = append(more, l.from.Disposition(v.Kind))
	}
	_, span := l.startSpan(l.parent, semconv.MessagingOperationTypeSettle, trace.SpanKindClient, judged, more...)
	if lost {
		span.SetAttributes(semconv.ErrorTypeKey.String("lost"))
		span.SetStatus(codes.Error, "the source took the message back before it was settled")
	}
	span.End(trace.WithTimestamp(now))
}

// recordError records an error in a span. An attempt that was interrupted through no fault of the
// function is not a failure.
func recordError(span trace.Span, err error) {
	if errors.Is(err, handlers.ErrNotTried) {
		span.AddEvent("not tried", trace.WithAttributes(attribute.String("reason", err.Error())))
		return
	}
	kind := errorType(err)
	about := []attribute.KeyValue{semconv.ExceptionType(kind), semconv.ExceptionMessage(err.Error())}
	var failure *handlers.Failure
	if errors.As(err, &failure) && failure.Detail != "" {
		about = append(about, semconv.ExceptionStacktrace(failure.Detail))
	}
	span.AddEvent(semconv.ExceptionEventName, trace.WithAttributes(about...))
	span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	span.SetStatus(codes.Error, err.Error())
}

var (
	exceptionName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,99}(:|$)`)
	answerStatus  = regexp.MustCompile(`^the app answers ([0-9]{3}) `)
)

// errorType classifies an error: by the name of the exception, the status of an HTTP app's answer,
// or drover's own errors. The number of different values is small.
func errorType(err error) string {
	var failure *handlers.Failure
	switch {
	case strings.HasPrefix(err.Error(), "timed out after"):
		return "timeout"
	case !errors.As(err, &failure):
		return semconv.ErrorTypeOther.Value.AsString()
	}
	if m := answerStatus.FindStringSubmatch(failure.Summary); m != nil {
		return m[1]
	}
	if name := exceptionName.FindString(failure.Summary); name != "" {
		return strings.TrimSuffix(name, ":")
	}
	return semconv.ErrorTypeOther.Value.AsString()
}

// parentLength is the length of a traceparent: version, trace, span and flags in hexadecimal,
// separated by hyphens. Later versions may be longer.
const parentLength = len("00-") + 32 + len("-") + 16 + len("-00")

// parseParent parses a traceparent; false if it is not valid.
func parseParent(text string) (trace.SpanContext, bool) {
	if len(text) < parentLength || text[:2] == "ff" || text[:2] == "00" && len(text) > parentLength || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return trace.SpanContext{}, false
	}
	id, err := trace.TraceIDFromHex(text[3:35])
	span, err2 := trace.SpanIDFromHex(text[36:52])
	flags, err3 := strconv.ParseUint(text[53:55], 16, 8)
	if err != nil || err2 != nil || err3 != nil {
		return trace.SpanContext{}, false
	}
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags), Remote: true}), true
}

// formatTrace returns a span context in W3C's format.
func formatTrace(c trace.SpanContext) (parent, state string) {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String(), c.TraceState().String()
}
