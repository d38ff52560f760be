package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/drover-run/drover/scaler"
)

// This file makes Prometheus' metrics of what is counted anyway, when somebody
// asks: they cost nothing on a message's way. docs/metrics.md lists them, and a
// test compares.

// handleBuckets and ageBuckets are the bounds of histograms, in seconds.
var (
	handleBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	ageBuckets    = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400}
)

// metrics is a collector of a daemon's own metrics.
type metrics struct {
	daemon *Daemon

	ready, backlog, oldest, dead, received, settled, inFlight, failed, lost, handle, age, stopped, paused *prometheus.Desc
	workers, restarts, startUp, instances, wanted, current, bound, decisions                              *prometheus.Desc
}

func newMetrics(d *Daemon) []prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("drover_"+name, help, labels, nil)
	}
	m := &metrics{
		daemon:    d,
		ready:     desc("ready", "1 while messages are taken, else 0."),
		backlog:   desc("backlog_messages", "Messages that are ready at the source and not handed out.", "function"),
		oldest:    desc("backlog_oldest_age_seconds", "Age of the oldest message that is ready at the source, where it tells.", "function"),
		dead:      desc("dead_letters_messages", "Dead letters at the source, where it tells.", "function"),
		received:  desc("messages_received_total", "Messages that were received.", "function"),
		settled:   desc("messages_settled_total", "Messages that were settled, by verdict.", "function", "verdict"),
		inFlight:  desc("messages_in_flight", "Messages that were received and are not settled: received less all settled.", "function"),
		failed:    desc("attempts_failed_total", "Attempts that the function failed, rejections among them.", "function"),
		lost:      desc("loans_lost_total", "Messages that the source took back before they were settled.", "function"),
		handle:    desc("handle_seconds", "Time from the hand-out of a message to its verdict.", "function"),
		age:       desc("message_age_seconds", "Age of messages that were done or rejected, from when they were enqueued, where the source tells.", "function"),
		stopped:   desc("function_stopped", "1 if the function has stopped, as its code does not load, else 0.", "function"),
		paused:    desc("function_paused", "1 while somebody has the function receive nothing, else 0.", "function"),
		workers:   desc("workers", "Worker processes of an app, by state.", "app", "state"),
		restarts:  desc("worker_restarts_total", "Workers that were started in place of others that died.", "app"),
		startUp:   desc("worker_start_up_seconds", "Time that a worker took to load the code, lately.", "app"),
		instances: desc("instances", "Instances that this daemon runs, by state.", "state"),
		wanted:    desc("scale_wanted", "Workers or instances that the scaler wants.", "of"),
		current:   desc("scale_current", "Workers or instances that it replaces with that.", "of"),
		bound:     desc("scale_bound", "1 for the bound that held the latest decision, else 0.", "of", "bound"),
		decisions: desc("scale_decisions_total", "Decisions of the scaler, by the bound that held them.", "of", "bound"),
	}
	return []prometheus.Collector{m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector()}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.ready, m.backlog, m.oldest, m.dead, m.received, m.settled, m.inFlight, m.failed, m.lost, m.handle, m.age, m.stopped, m.paused,
		m.workers, m.restarts, m.startUp, m.instances, m.wanted, m.current, m.bound, m.decisions,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, n int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(m.ready, truth(len(m.daemon.notReady()) == 0))
	for _, s := range m.daemon.Status() {
		m.function(s, gauge, counter, to)
	}
	for app, stats := range m.daemon.pools() {
		gauge(m.workers, float64(stats.Ready), app, "ready")
		gauge(m.workers, float64(stats.Starting), app, "starting")
		gauge(m.workers, float64(stats.Retiring), app, "retiring")
		counter(m.restarts, int64(stats.Restarts), app)
		gauge(m.startUp, stats.StartUp.Seconds(), app)
	}
	if c, ok := m.daemon.Instances(); ok {
		gauge(m.instances, float64(c.Ready), "ready")
		gauge(m.instances, float64(c.Starting), "starting")
		gauge(m.instances, float64(c.Draining), "draining")
	}
	for of, d := range m.daemon.decisions.all() {
		gauge(m.wanted, float64(d.Wanted), of)
		gauge(m.current, float64(d.Current), of)
		for _, bound := range scaler.Bounds {
			gauge(m.bound, truth(bound == d.Bound), of, string(bound))
			counter(m.decisions, d.Count[bound], of, string(bound))
		}
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// function collects what there is of one function.
func (m *metrics) function(s FunctionStatus, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, int64, ...string), to chan<- prometheus.Metric) {
	counter(m.received, s.Received, s.Name)
	for verdict, n := range map[string]int64{"done": s.Done, "retry": s.Retried, "reject": s.Rejected, "release": s.Released} {
		counter(m.settled, n, s.Name, verdict)
	}
	gauge(m.inFlight, float64(s.InFlight), s.Name)
	counter(m.failed, s.Failed, s.Name)
	counter(m.lost, s.Lost, s.Name)
	gauge(m.stopped, truth(s.Stopped), s.Name)
	gauge(m.paused, truth(s.Paused), s.Name)
	to <- newHistogramMetric(m.handle, s.Latency, handleBuckets, s.Name)
	to <- newHistogramMetric(m.age, s.Age, ageBuckets, s.Name)
	b := m.daemon.backlogs.of(context.Background(), m.daemon, s.Name, scrapeFresh)
	if b.ready >= 0 {
		gauge(m.backlog, float64(b.ready), s.Name)
		age := 0.0
		if !b.oldest.IsZero() {
			age = max(time.Since(b.oldest).Seconds(), 0)
		}
		gauge(m.oldest, age, s.Name)
	}
	if b.more != nil {
		gauge(m.dead, float64(b.more.Dead), s.Name)
	}
}
