package daemon

import "github.com/prometheus/client_golang/prometheus"

// traceMetrics are of the spans, where there are any.
type traceMetrics struct {
	described
	daemon        *Daemon
	sent, dropped *prometheus.Desc
}

func newTraceMetrics(d *Daemon) *traceMetrics {
	m := &traceMetrics{daemon: d}
	m.sent = m.add("trace_spans_sent_total", "Spans that the collector has accepted.")
	m.dropped = m.add("trace_spans_dropped_total", "Spans that were dropped, since the collector is away, or too slow.")
	return m
}

// Collect implements prometheus.Collector.
func (m *traceMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.daemon.mu.Lock()
	traces := m.daemon.traces
	m.daemon.mu.Unlock()
	if traces == nil {
		return
	}
	to := emit(metrics)
	to.counter(m.sent, float64(traces.SpansSent()))
	to.counter(m.dropped, float64(traces.SpansDropped()))
}
