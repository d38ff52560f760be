package status

import "github.com/prometheus/client_golang/prometheus"

// instanceMetrics collects the metrics of the daemon as a whole.
type instanceMetrics struct {
	descriptions
	view                      *View
	ready, instances, failing *prometheus.Desc
	reloads, reloaded, store  *prometheus.Desc
	bodies, budget            *prometheus.Desc
}

func newInstanceMetrics(v *View) *instanceMetrics {
	m := &instanceMetrics{view: v}
	m.ready = m.addMetric("ready", "1 while messages are received, else 0.")
	m.reloads = m.addMetric("config_reloads_total", "Reloads of the configuration, by result.", "result")
	m.reloaded = m.addMetric("config_last_reload_successful", "0 if the last reload of the configuration was refused, else 1.")
	m.store = m.addMetric("store_available", "1 while the embedded NATS server can write its store, else 0.", "connection")
	m.instances = m.addMetric("instances", "Instances that this daemon runs, by state.", "state")
	m.failing = m.addMetric("instances_failing", "1 while required instances do not start, else 0.")
	m.bodies = m.addMetric("in_flight_bytes", "Bytes of message bodies that are prefetched or in flight.")
	m.budget = m.addMetric("in_flight_limit_bytes", "Limit of drover_in_flight_bytes, from in_flight_memory.")
	return m
}

// Collect implements prometheus.Collector.
func (m *instanceMetrics) Collect(metrics chan<- prometheus.Metric) {
	to := metricSink(metrics)
	to.sendGauge(m.ready, boolValue(len(m.view.UnreadyReasons()) == 0))
	for _, connection := range m.view.StoreNames() {
		to.sendGauge(m.store, boolValue(m.view.StoreProblem(connection) == nil), connection)
	}
	reloads := m.view.Reload()
	to.sendCounter(m.reloads, float64(reloads.Done), "done")
	to.sendCounter(m.reloads, float64(reloads.Failed), "refused")
	to.sendGauge(m.reloaded, boolValue(reloads.Refused == ""))
	b := m.view.Bodies()
	to.sendGauge(m.bodies, float64(b.Used()))
	to.sendGauge(m.budget, float64(b.Limit()))
	if c, ok := m.view.countInstances(); ok {
		to.sendGauge(m.instances, float64(c.Ready), "ready")
		to.sendGauge(m.instances, float64(c.Starting), "starting")
		to.sendGauge(m.instances, float64(c.Draining), "draining")
		to.sendGauge(m.failing, boolValue(c.Failing != ""))
	}
}
