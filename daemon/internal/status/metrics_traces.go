package status

import "github.com/prometheus/client_golang/prometheus"

// traceMetrics collects the metrics of spans, if there are any.
type traceMetrics struct {
	descriptions
	view          *View
	sent, dropped *prometheus.Desc
}

func newTraceMetrics(v *View) *traceMetrics {
	m := &traceMetrics{view: v}
	m.sent = m.addMetric("trace_spans_sent_total", "Spans that the collector has accepted.")
	m.dropped = m.addMetric("trace_spans_dropped_total", "Spans dropped because the collector was unreachable or too slow.")
	return m
}

// Collect implements prometheus.Collector.
func (m *traceMetrics) Collect(metrics chan<- prometheus.Metric) {
	traces := m.view.Traces()
	if traces == nil {
		return
	}
	to := metricSink(metrics)
	to.sendCounter(m.sent, float64(traces.SpansSent()))
	to.sendCounter(m.dropped, float64(traces.SpansDropped()))
}
