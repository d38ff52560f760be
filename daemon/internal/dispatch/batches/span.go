package batches

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/drover-run/drover/handlers"
)

// scope is the instrumentation scope of the spans.
const scope = "github.com/drover-run/drover"

// startSpan starts a span for a call with messages, if any of them is traced. It is a child of the first
// traced message's process span, and links those of all. end ends it, with the error of the call.
func startSpan(ctx context.Context, function string, items []item) (with context.Context, end func(error)) {
	if len(items) == 1 {
		return ctx, func(error) {} // its process span is the call's
	}
	var parent trace.Span
	var links []trace.Link
	for _, it := range items {
		span := trace.SpanFromContext(it.ctx)
		if !span.SpanContext().IsValid() {
			continue
		}
		if parent == nil {
			parent = span
		}
		links = append(links, trace.Link{SpanContext: span.SpanContext()})
	}
	if parent == nil {
		return ctx, func(error) {}
	}
	with, span := parent.TracerProvider().Tracer(scope).Start(trace.ContextWithSpan(ctx, parent), "process batch "+function,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(semconv.MessagingOperationTypeProcess, semconv.MessagingBatchMessageCount(len(items)), attribute.String("drover.function", function)))
	return with, func(err error) {
		if err != nil && !errors.Is(err, handlers.ErrNotTried) {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
