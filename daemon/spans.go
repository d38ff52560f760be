package daemon

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

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file makes the spans of a message, by OpenTelemetry's conventions for
// messaging: receive, process, send and settle. The dispatcher calls it at each step;
// its methods do nothing where nothing is traced (spans is nil) and for a message that
// is not (its trail is nil). docs/traces.md says what is in them.

// entity is a queue or a topic, as the conventions have it.
type entity struct {
	system string
	name   string // of low cardinality
	about  []attribute.KeyValue
}

// The systems that the conventions have no name for.
const (
	systemNATS         = "nats"
	systemStorageQueue = "azure_storage_queue"
)

func destinationOf(o configs.Output) entity {
	switch {
	case o.ServiceBus != nil:
		return entity{system: semconv.MessagingSystemServiceBus.Value.AsString(), name: o.ServiceBus.Queue + o.ServiceBus.Topic} // one of them is empty
	case o.StorageQueue != nil:
		return entity{system: systemStorageQueue, name: o.StorageQueue.Queue}
	case o.NATS != nil:
		return entity{system: systemNATS, name: o.NATS.Subject}
	}
	return entity{}
}

func sourceOf(t configs.Trigger) (d entity) {
	switch {
	case t.ServiceBus != nil:
		d = entity{system: semconv.MessagingSystemServiceBus.Value.AsString(), name: t.ServiceBus.Queue + t.ServiceBus.Topic}
		if len(t.ServiceBus.Subscription) == 1 && t.ServiceBus.Topic != "" {
			d.about = append(d.about, semconv.MessagingDestinationSubscriptionName(t.ServiceBus.Subscription[0]))
		}
	case t.StorageQueue != nil:
		d = entity{system: systemStorageQueue, name: t.StorageQueue.Queue}
	case t.NATS != nil:
		d = entity{system: systemNATS, name: t.NATS.Subject}
		if d.name == "" {
			d.name = t.NATS.Stream
		}
		if strings.ContainsAny(d.name, "*>") {
			d.about = append(d.about, semconv.MessagingDestinationTemplate(d.name))
		}
		d.about = append(d.about, semconv.MessagingConsumerGroupName(t.NATS.Consumer))
	}
	return d
}

// spans makes those of one function.
type spans struct {
	*traces
	from  entity
	about []attribute.KeyValue // of each but those of outputs
}

// of are a function's; nil where nothing is traced.
func (t *traces) of(function string, settings configs.Function) *spans {
	if t == nil {
		return nil
	}
	s := &spans{traces: t, from: sourceOf(settings.Trigger)}
	s.about = append(s.about, semconv.MessagingSystemKey.String(s.from.system), attribute.String("drover.function", function))
	s.about = append(s.about, s.from.about...)
	return s
}

// now is the time, where it is needed.
func (s *spans) now() (now time.Time) {
	if s != nil {
		now = time.Now()
	}
	return now
}

// trail is what is known of a message that is traced.
type trail struct {
	*spans
	about   []attribute.KeyValue
	parent  context.Context // of process and settle: the message's, or the receive span's
	process trace.Span      // nil until it is handled
}

// received decides whether a message is traced, and makes the span of its receipt,
// which was asked for at a time: a message with a trace is traced where its sender
// is, and of the others a part. A message that is not traced costs no allocation.
func (s *spans) received(t *turn, asked time.Time) {
	if s == nil {
		return
	}
	text, state := t.delivery.Message.Trace()
	parent, found := parentOf(text)
	if found && !parent.IsSampled() || !found && rand.Float64() >= s.sample {
		return
	}
	if found {
		if states, err := trace.ParseTraceState(state); err == nil {
			parent = parent.WithTraceState(states)
		}
	}
	t.trail = s.begin(t, parent, asked)
}

func (s *spans) begin(t *turn, parent trace.SpanContext, asked time.Time) *trail {
	m := t.delivery.Message
	l := &trail{spans: s, parent: context.Background()}
	l.about = append(l.about, s.about...)
	name := s.from.name
	if s.from.system == systemNATS && m.Subject != "" {
		name = m.Subject
	}
	l.about = append(l.about, semconv.MessagingDestinationName(name), semconv.MessagingMessageID(m.ID),
		semconv.MessagingMessageBodySize(len(m.Body)), attribute.Int("drover.attempt", m.Attempt))
	// What a receiver waited while there was no message is of no interest.
	if m.Enqueued.After(asked) && m.Enqueued.Before(t.start) {
		asked = m.Enqueued
	}
	if parent.IsValid() {
		l.parent = trace.ContextWithRemoteSpanContext(l.parent, parent)
	}
	ctx, span := l.start(l.parent, semconv.MessagingOperationTypeReceive, trace.SpanKindClient, asked)
	span.End(trace.WithTimestamp(t.start))
	if !parent.IsValid() {
		l.parent = ctx
	}
	return l
}

// start begins a span about the message.
func (l *trail) start(parent context.Context, operation attribute.KeyValue, kind trace.SpanKind, at time.Time, more ...attribute.KeyValue) (context.Context, trace.Span) {
	what := operation.Value.AsString()
	return l.tracer.Start(parent, what+" "+l.from.name, trace.WithSpanKind(kind), trace.WithTimestamp(at),
		trace.WithAttributes(l.about...), trace.WithAttributes(operation, semconv.MessagingOperationName(what)), trace.WithAttributes(more...))
}

// handle begins the span of handling. What handles the message gets its context: Go
// functions in their context, all others in the message's attributes.
func (l *trail) handle(t *turn) {
	if l == nil {
		return
	}
	var ctx context.Context
	ctx, l.process = l.start(l.parent, semconv.MessagingOperationTypeProcess, trace.SpanKindConsumer, t.start)
	t.with(func(below context.Context) context.Context { return trace.ContextWithSpan(below, l.process) })
	t.message = t.message.WithTrace(textOf(trace.SpanContextFromContext(ctx)))
}

// sentSpan is the span of a result; nil where there is none.
type sentSpan struct{ span trace.Span }

// send begins the span of a result of so many bytes, and returns the message in
// whose context that is to be sent.
func (l *trail) send(o *output, m *triggers.Message, size int) (*triggers.Message, sentSpan) {
	if l == nil || l.process == nil {
		return m, sentSpan{}
	}
	what := semconv.MessagingOperationTypeSend.Value.AsString()
	_, span := l.tracer.Start(trace.ContextWithSpan(context.Background(), l.process), what+" "+o.at.name, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(semconv.MessagingSystemKey.String(o.at.system), semconv.MessagingDestinationName(o.at.name), semconv.MessagingOperationTypeSend,
			semconv.MessagingOperationName(what), semconv.MessagingMessageBodySize(size)))
	return m.WithTrace(textOf(span.SpanContext())), sentSpan{span}
}

func (s sentSpan) end(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		fail(s.span, err)
	}
	s.span.End()
}

// end ends the span of handling, which took so long, and makes that of the settlement,
// which has ended now.
func (l *trail) end(t *turn, v triggers.Verdict, err error, took time.Duration, now time.Time) {
	if l == nil {
		return
	}
	judged := t.start.Add(took)
	verdict := attribute.String("drover.verdict", v.Kind.String())
	if l.process != nil {
		l.process.SetAttributes(verdict)
		if err != nil {
			fail(l.process, err)
		}
		l.process.End(trace.WithTimestamp(judged))
	}
	more := []attribute.KeyValue{verdict}
	if v.Kind == triggers.Retry {
		more = append(more, attribute.Float64("drover.retry_delay", v.Delay.Seconds()))
	}
	if l.from.system == semconv.MessagingSystemServiceBus.Value.AsString() {
		more = append(more, disposition(v.Kind))
	}
	_, span := l.start(l.parent, semconv.MessagingOperationTypeSettle, trace.SpanKindClient, judged, more...)
	if t.lost.Load() {
		span.SetAttributes(semconv.ErrorTypeKey.String("lost"))
		span.SetStatus(codes.Error, "the source took the message back before it was settled")
	}
	span.End(trace.WithTimestamp(now))
}

// disposition is what Service Bus calls a verdict.
func disposition(kind triggers.Kind) attribute.KeyValue {
	switch kind {
	case triggers.Done:
		return semconv.MessagingServiceBusDispositionStatusComplete
	case triggers.Reject:
		return semconv.MessagingServiceBusDispositionStatusDeadLetter
	}
	return semconv.MessagingServiceBusDispositionStatusAbandon
}

// fail notes an error. What was cut short by no fault of its own has not failed.
func fail(span trace.Span, err error) {
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

// errorType is a word for an error: the name of the exception, the status of an
// HTTP app's answer, or what drover knows of it. There are few of them.
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

// parentLength is a traceparent's: version, trace, span and flags in hexadecimal, with
// hyphens between. Later versions may be longer.
const parentLength = len("00-") + 32 + len("-") + 16 + len("-00")

// parentOf reads a traceparent; false where it is none.
func parentOf(text string) (trace.SpanContext, bool) {
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

// textOf writes a context as W3C has it.
func textOf(c trace.SpanContext) (parent, state string) {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String(), c.TraceState().String()
}
