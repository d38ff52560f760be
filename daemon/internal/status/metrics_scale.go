package status

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-run/drover/scaler"
)

// scaleMetrics collects the decisions of the scaler, and their reasons.
type scaleMetrics struct {
	descriptions
	view                                       *View
	wanted, current, formula, bound, decisions *prometheus.Desc
	arrivals, backlog, capacity, busy          *prometheus.Desc
}

func newScaleMetrics(v *View) *scaleMetrics {
	m := &scaleMetrics{view: v}
	m.wanted = m.addMetric("scale_wanted", "Target number of workers or instances.", "of")
	m.current = m.addMetric("scale_current", "Number of workers or instances at the decision.", "of")
	m.formula = m.addMetric("scale_formula", "Number of workers or instances from the formula, before bounds.", "of")
	m.bound = m.addMetric("scale_bound", "1 for the bound that held the latest decision, else 0.", "of", "bound")
	m.decisions = m.addMetric("scale_decisions_total", "Decisions of the scaler, by the bound that held them.", "of", "bound")
	m.arrivals = m.addMetric("scale_arrival_rate", "Arrival rate that the scaler uses, in messages a second.", "of", "function")
	m.backlog = m.addMetric("scale_backlog_messages", "Backlog that the scaler uses; missing if the source does not report it.", "of", "function")
	m.capacity = m.addMetric("scale_capacity_rate", "Messages that one worker or instance can handle per second; 0 until measured.", "of", "function")
	m.busy = m.addMetric("scale_busy_ratio", "Fraction of the slots in use.", "of", "function")
	return m
}

// Collect implements prometheus.Collector.
func (m *scaleMetrics) Collect(metrics chan<- prometheus.Metric) {
	to := metricSink(metrics)
	for of, d := range m.view.Decisions.AllDecisions() {
		to.sendGauge(m.wanted, float64(d.Wanted), of)
		to.sendGauge(m.current, float64(d.Current), of)
		to.sendGauge(m.formula, float64(d.Raw), of)
		for _, l := range d.Loads {
			to.sendGauge(m.arrivals, l.Arrivals, of, l.Function)
			if l.Backlog != scaler.Unreadable {
				to.sendGauge(m.backlog, float64(l.Backlog), of, l.Function)
			}
			to.sendGauge(m.capacity, l.Capacity, of, l.Function)
			to.sendGauge(m.busy, l.Busy, of, l.Function)
		}
		for _, bound := range scaler.Bounds {
			to.sendGauge(m.bound, boolValue(bound == d.Bound), of, string(bound))
			to.sendCounter(m.decisions, float64(d.Count[bound]), of, string(bound))
		}
	}
}
