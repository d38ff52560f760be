package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-run/drover/scaler"
)

// scaleMetrics are what the scaler decided, and why.
type scaleMetrics struct {
	described
	daemon                            *Daemon
	wanted, current, bound, decisions *prometheus.Desc
}

func newScaleMetrics(d *Daemon) *scaleMetrics {
	m := &scaleMetrics{daemon: d}
	m.wanted = m.add("scale_wanted", "Workers or instances that the scaler wants.", "of")
	m.current = m.add("scale_current", "Workers or instances that it replaces with that.", "of")
	m.bound = m.add("scale_bound", "1 for the bound that held the latest decision, else 0.", "of", "bound")
	m.decisions = m.add("scale_decisions_total", "Decisions of the scaler, by the bound that held them.", "of", "bound")
	return m
}

// Collect implements prometheus.Collector.
func (m *scaleMetrics) Collect(metrics chan<- prometheus.Metric) {
	to := emit(metrics)
	for of, d := range m.daemon.decisions.all() {
		to.gauge(m.wanted, float64(d.Wanted), of)
		to.gauge(m.current, float64(d.Current), of)
		for _, bound := range scaler.Bounds {
			to.gauge(m.bound, truth(bound == d.Bound), of, string(bound))
			to.counter(m.decisions, float64(d.Count[bound]), of, string(bound))
		}
	}
}
