package daemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

// This file and its neighbours make Prometheus' metrics of what is counted anyway,
// when somebody asks: they cost nothing on a message's way. docs/metrics.md lists
// them, and a test compares.
//
// Labels are names in the configuration, or words of a list here: none is made of
// what a message, an app or a source says.

func metricsRoutes(d *Daemon) []admin.Route {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newMetrics(d)...)
	return []admin.Route{{
		ID: "getMetrics", Method: http.MethodGet, Path: api.MetricsPath, Help: "Prometheus' metrics, as text or OpenMetrics.",
		ContentType: "text/plain", Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP,
	}}
}

// newMetrics are the collectors of a daemon's own metrics, and of the process's.
func newMetrics(d *Daemon) []prometheus.Collector {
	return []prometheus.Collector{
		newInstanceMetrics(d), newFunctionMetrics(d), newAppMetrics(d), newScaleMetrics(d), newTraceMetrics(d),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(),
	}
}

// described are the descriptions of a collector.
type described []*prometheus.Desc

// add adds one, with its labels.
func (d *described) add(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc("drover_"+name, help, labels, nil)
	*d = append(*d, desc)
	return desc
}

// Describe implements prometheus.Collector.
func (d described) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range d {
		to <- desc
	}
}

// emit takes metrics.
type emit chan<- prometheus.Metric

func (to emit) gauge(d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (to emit) counter(d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// instanceMetrics are of the daemon as a whole.
type instanceMetrics struct {
	described
	daemon                    *Daemon
	ready, instances, failing *prometheus.Desc
	reloads, reloaded, store  *prometheus.Desc
	bodies, budget            *prometheus.Desc
}

func newInstanceMetrics(d *Daemon) *instanceMetrics {
	m := &instanceMetrics{daemon: d}
	m.ready = m.add("ready", "1 while messages are received, else 0.")
	m.reloads = m.add("config_reloads_total", "Reloads of the configuration, by result.", "result")
	m.reloaded = m.add("config_last_reload_successful", "0 if the last reload of the configuration was refused, else 1.")
	m.store = m.add("store_available", "1 while the embedded NATS server can write its store, else 0.", "connection")
	m.instances = m.add("instances", "Instances that this daemon runs, by state.", "state")
	m.failing = m.add("instances_failing", "1 while instances that are wanted do not start, else 0.")
	m.bodies = m.add("in_flight_bytes", "Bytes of message bodies that are prefetched or in flight.")
	m.budget = m.add("in_flight_limit_bytes", "The most that drover_in_flight_bytes may be, by in_flight_memory.")
	return m
}

// Collect implements prometheus.Collector.
func (m *instanceMetrics) Collect(metrics chan<- prometheus.Metric) {
	to := emit(metrics)
	to.gauge(m.ready, truth(len(m.daemon.notReady()) == 0))
	for _, connection := range m.daemon.stores.names() {
		to.gauge(m.store, truth(m.daemon.stores.problem(connection) == nil), connection)
	}
	reloads := m.daemon.lastReload()
	to.counter(m.reloads, float64(reloads.Done), "done")
	to.counter(m.reloads, float64(reloads.Failed), "refused")
	to.gauge(m.reloaded, truth(reloads.Refused == ""))
	b := m.daemon.bodies()
	to.gauge(m.bodies, float64(b.Used()))
	to.gauge(m.budget, float64(b.Limit()))
	if c, ok := m.daemon.Instances(); ok {
		to.gauge(m.instances, float64(c.Ready), "ready")
		to.gauge(m.instances, float64(c.Starting), "starting")
		to.gauge(m.instances, float64(c.Draining), "draining")
		to.gauge(m.failing, truth(c.Failing != ""))
	}
}
