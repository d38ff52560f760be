package status

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/triggers"
)

// handleBuckets and ageBuckets are the bounds of histograms, in seconds.
var (
	handleBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	ageBuckets    = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400}
)

// functionMetrics collects the metrics of functions and their messages.
type functionMetrics struct {
	descriptions
	view *View
	linkDescs
	backlog, oldest, dead, received, settled, inFlight, failed *prometheus.Desc
	lost, handle, age, stopped, paused, rejections             *prometheus.Desc
	batches, batchMessages, batchSplits                        *prometheus.Desc
}

// linkDescs describes the metrics of connections to sources and apps, and of problems.
type linkDescs struct {
	connected, disconnected, receiveErrors, reconnects, gate *prometheus.Desc
	nextDue, responses                                       *prometheus.Desc
	problems, unsettled                                      *prometheus.Desc
}

// problemKinds are the values of a label.
var problemKinds = []string{api.ProblemUnsettled, api.ProblemOutput, triggers.TroubleDeadLetters, triggers.TroubleAttempts, triggers.TroubleRights}

func newFunctionMetrics(v *View) *functionMetrics {
	m := &functionMetrics{view: v}
	add := func(name, help string, labels ...string) *prometheus.Desc {
		return m.addMetric(name, help, append([]string{"function"}, labels...)...)
	}
	m.backlog = add("backlog_messages", "Messages ready at the source and not delivered.")
	m.oldest = add("backlog_oldest_age_seconds", "Age of the oldest message ready at the source, if the source reports it.")
	m.dead = add("dead_letters_messages", "Dead letters at the source, if the source reports them.")
	m.received = add("messages_received_total", "Messages that were received.")
	m.settled = add("messages_settled_total", "Messages that were settled, by verdict.", "verdict")
	m.inFlight = add("messages_in_flight", "Messages that were received and are not settled: received less all settled.")
	m.failed = add("attempts_failed_total", "Attempts that the function failed, including rejections.")
	m.rejections = add("rejections_total", "Messages that were rejected, by reason.", "reason")
	m.lost = add("leases_lost_total", "Messages whose lock or lease expired before they were settled.")
	m.handle = add("handle_seconds", "Time from the hand-out of a message to its verdict.")
	m.age = add("message_age_seconds", "Age of messages when they were done or rejected, since they were enqueued, if the source reports it.")
	m.stopped = add("function_stopped", "1 if the function is disabled because its code does not load, else 0.")
	m.paused = add("function_paused", "1 while the function is paused, else 0.")
	m.connected = add("trigger_connected", "1 while the source can be reached, else 0.")
	m.disconnected = add("trigger_disconnected_seconds", "How long the source has been unreachable; 0 while it can be reached.")
	m.receiveErrors = add("receive_errors_total", "Failed attempts to receive.")
	m.reconnects = add("trigger_reconnects_total", "Reconnects to the source, if it reports them.")
	m.nextDue = add("timer_next_due_timestamp_seconds", "When the function's timer is due next, as Unix time; missing without a timer, and during a run.")
	m.responses = add("http_responses_total", "Responses to HTTP requests, by status, including refused requests.", "status")
	m.problems = add("function_problems", "Problems that need an operator, by kind.", "kind")
	m.unsettled = add("messages_unsettled", "Messages whose verdict the source refuses; they wait outside their slots.")
	m.batches = add("batches_total", "Calls of a function that takes batches.")
	m.batchMessages = add("batch_messages_total", "Messages in the calls of a function that takes batches.")
	m.batchSplits = add("batch_splits_total", "Batches that failed as a whole, and ran again in halves.")
	m.gate = add("http_gate_open", "1 while the function's HTTP app counts as healthy, else 0, and nothing is received.")
	return m
}

// Collect implements prometheus.Collector.
func (m *functionMetrics) Collect(metrics chan<- prometheus.Metric) {
	to := metricSink(metrics)
	for _, s := range m.view.FunctionStatuses() {
		m.collectCounts(s, to)
		to.sendCounter(m.failed, float64(s.Failed), s.Name)
		to.sendCounter(m.lost, float64(s.Lost), s.Name)
		to.sendGauge(m.stopped, boolValue(s.Stopped), s.Name)
		to.sendGauge(m.paused, boolValue(s.Paused), s.Name)
		to <- telemetry.NewHistogramMetric(m.handle, s.Latency, telemetry.ProcessStart, handleBuckets, s.Name)
		to <- telemetry.NewHistogramMetric(m.age, s.Age, telemetry.ProcessStart, ageBuckets, s.Name)
		if b := s.Batches; b != nil {
			to.sendCounter(m.batches, float64(b.Calls), s.Name)
			to.sendCounter(m.batchMessages, float64(b.Messages), s.Name)
			to.sendCounter(m.batchSplits, float64(b.Splits), s.Name)
		}
		m.collectProblems(s, to)
		m.collectLink(s, to)
		m.collectBacklog(s.Name, to)
	}
}

// collectCounts emits the counts of one moment: in every scrape, received is the sum of settled
// and in flight.
func (m *functionMetrics) collectCounts(s api.FunctionStatus, to metricSink) {
	to.sendCounter(m.received, float64(s.Received), s.Name)
	for verdict, n := range map[string]int64{"done": s.Done, "retry": s.Retried, "reject": s.Rejected, "release": s.Released, "abandoned": s.Abandoned} {
		to.sendCounter(m.settled, float64(n), s.Name, verdict)
	}
	to.sendGauge(m.inFlight, float64(s.InFlight), s.Name)
	for _, why := range dispatch.RejectionReasons() {
		to.sendCounter(m.rejections, float64(s.Rejections[why]), s.Name, why)
	}
}

// collectProblems emits the problems that need an operator.
func (m *functionMetrics) collectProblems(s api.FunctionStatus, to metricSink) {
	problems, unsettled := make(map[string]int), int64(0)
	for _, p := range s.Problems {
		if problems[p.Kind]++; p.Kind == api.ProblemUnsettled {
			unsettled += p.Messages
		}
	}
	for _, kind := range problemKinds {
		to.sendGauge(m.problems, float64(problems[kind]), s.Name, kind)
	}
	to.sendGauge(m.unsettled, float64(unsettled), s.Name)
}

// collectLink emits the state of the connections to the source and the app.
func (m *functionMetrics) collectLink(s api.FunctionStatus, to metricSink) {
	down := 0.0
	if !s.Disconnected.IsZero() {
		down = max(time.Since(s.Disconnected).Seconds(), 0)
	}
	to.sendGauge(m.connected, boolValue(s.Disconnected.IsZero()), s.Name)
	to.sendGauge(m.disconnected, down, s.Name)
	to.sendCounter(m.receiveErrors, float64(s.ReceiveErrors), s.Name)
	to.sendCounter(m.reconnects, float64(s.Reconnects), s.Name)
	if !s.NextDue.IsZero() {
		to.sendGauge(m.nextDue, float64(s.NextDue.UnixMilli())/1e3, s.Name)
	}
	for status, n := range s.Responses {
		if code, err := strconv.Atoi(status); err == nil && code >= 200 && code <= 999 {
			to.sendCounter(m.responses, float64(n), s.Name, strconv.Itoa(code))
		}
	}
	if s.Gate != "" {
		to.sendGauge(m.gate, boolValue(s.Gate == api.GateOpen), s.Name)
	}
}

// collectBacklog emits the backlog of the source.
func (m *functionMetrics) collectBacklog(function string, to metricSink) {
	b := m.view.Backlogs.ReadBacklog(context.Background(), function, scrapeMaxAge)
	if b.Ready >= 0 {
		to.sendGauge(m.backlog, float64(b.Ready), function)
		age := 0.0
		if !b.Oldest.IsZero() {
			age = max(time.Since(b.Oldest).Seconds(), 0)
		}
		to.sendGauge(m.oldest, age, function)
	}
	if b.More != nil {
		to.sendGauge(m.dead, float64(b.More.Dead), function)
	}
}
