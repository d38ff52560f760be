package status

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/scaler/autotune"
)

// lagBuckets are the bounds of a histogram, in seconds.
var lagBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// appMetrics collects the metrics of the worker processes of apps.
type appMetrics struct {
	descriptions
	view                                                  *View
	workers, restarts, startUp, cpu, memory, largest, lag *prometheus.Desc
	blocks, blocked, isolated                             *prometheus.Desc
	settings, delayed                                     *prometheus.Desc
	machineDescs
	callDescs
}

// machineDescs describes the metrics of the machine.
type machineDescs struct{ cores, available, pressure *prometheus.Desc }

// callDescs describes the metrics of the calls of functions.
type callDescs struct{ kind, wall, held, queued, functionCPU, measured *prometheus.Desc }

func newAppMetrics(v *View) *appMetrics {
	m := &appMetrics{view: v}
	add := func(name, help string, labels ...string) *prometheus.Desc {
		return m.addMetric(name, help, append([]string{"app"}, labels...)...)
	}
	m.workers = add("workers", "Worker processes of an app, by state.", "state")
	m.restarts = add("worker_restarts_total", "Workers started to replace others, by the reason.", "cause")
	m.startUp = add("worker_start_up_seconds", "Time that a recent worker took to load the code.")
	m.cpu = add("worker_cpu_seconds_total", "CPU time of all workers of an app, including those that ended.")
	m.memory = add("worker_memory_bytes", "Total memory of an app's workers, by kind.", "kind")
	m.largest = add("worker_memory_largest_bytes", "Resident memory of the largest worker.")
	m.lag = add("event_loop_lag_seconds", "How long a callback had to wait for a worker's event loop.")
	m.blocks = add("event_loop_blocks_total", "Blocks of an event loop of 50 ms and more, by the function that blocked.", "function")
	m.blocked = add("event_loop_blocked_seconds_total", "Duration of these blocks.", "function")
	m.isolated = add("function_apart_workers", "Worker processes of an isolated function, which blocks the event loop.", "function")
	m.settings = add("app_settings", "Concurrency of an app: worker processes, and threads and coroutines of each.", "setting")
	m.delayed = add("worker_run_queue_seconds_total", "Time for which threads of an app's workers were ready to run and waited for a core.")
	m.cores = m.addMetric("machine_cores", "Cores that may be used: those of the machine, or the quota of the cgroup.")
	m.available = m.addMetric("machine_memory_available_bytes", "Memory that can still be used, within the limit of the cgroup.")
	m.pressure = m.addMetric("machine_pressure_ratio", "Fraction of the last ten seconds in which something waited for a resource: cpu or memory.", "resource")
	m.kind = m.addMetric("function_kind", "1 for the kind of a function, as measured: cpu, blocking, async or mixed.", "function", "kind")
	m.wall = m.addMetric("call_seconds_total", "Time that calls of a function in workers took.", "function")
	m.queued = m.addMetric("call_queue_seconds_total", "Time of calls between the daemon and the function in a worker, mostly in its queue.", "function")
	m.measured = m.addMetric("call_measured_seconds_total", "The part of drover_call_seconds_total for which CPU time and held time were measured.", "function")
	m.functionCPU = m.addMetric("call_cpu_seconds_total", "CPU time of the measured calls, of their own threads.", "function")
	m.held = m.addMetric("call_held_seconds_total", "Time for which the measured calls had their threads, running or waiting.", "function")
	return m
}

// Collect implements prometheus.Collector.
func (m *appMetrics) Collect(metrics chan<- prometheus.Metric) {
	to := metricSink(metrics)
	apps := m.view.AppStatuses()
	for _, s := range apps {
		if s.Tuned == nil {
			continue
		}
		seen := s.Tuned.Machine // all apps report the same machine
		to.sendGauge(m.cores, seen.Cores)
		if seen.MemoryLimit > 0 {
			to.sendGauge(m.available, float64(seen.MemoryAvailable))
		}
		if seen.CPUPressure != nil {
			to.sendGauge(m.pressure, *seen.CPUPressure, "cpu")
		}
		if seen.MemoryPressure != nil {
			to.sendGauge(m.pressure, *seen.MemoryPressure, "memory")
		}
		break
	}
	for app, s := range apps {
		to.sendGauge(m.workers, float64(s.Ready), app, "ready")
		to.sendGauge(m.workers, float64(s.Starting), app, "starting")
		to.sendGauge(m.workers, float64(s.Retiring), app, "retiring")
		to.sendGauge(m.workers, float64(s.Spare), app, "spare")
		for _, cause := range process.Causes {
			to.sendCounter(m.restarts, float64(s.Restarts[cause]), app, string(cause))
		}
		to.sendGauge(m.startUp, s.StartUp.Seconds(), app)
		to.sendCounter(m.cpu, s.Usage.CPU.Seconds(), app)
		if s.Usage.Known {
			to.sendGauge(m.memory, float64(s.Usage.Memory.Resident), app, "resident")
			to.sendGauge(m.memory, float64(s.Usage.Memory.Anonymous), app, "anonymous")
			to.sendGauge(m.memory, float64(s.Usage.Memory.Proportional), app, "proportional")
			to.sendGauge(m.largest, float64(s.Usage.Largest), app)
		}
		for function, b := range s.Blocked {
			to.sendCounter(m.blocks, float64(b.Times), app, function)
			to.sendCounter(m.blocked, b.Time.Seconds(), app, function)
		}
		for function, n := range s.Isolated {
			to.sendGauge(m.isolated, float64(n), app, function)
		}
		if t := s.Tuned; t != nil {
			to.sendCounter(m.delayed, t.Delayed.Seconds(), app)
			to.sendGauge(m.settings, float64(t.Settings.Processes), app, "processes")
			to.sendGauge(m.settings, float64(t.Settings.Threads), app, "threads")
			to.sendGauge(m.settings, float64(t.Settings.Coroutines), app, "coroutines")
			for name, k := range t.Kinds {
				if k.Kind != autotune.KindUnknown {
					to.sendGauge(m.kind, 1, name, k.Kind)
				}
			}
		}
		for _, c := range s.Measures {
			to.sendCounter(m.wall, c.Wall.Seconds(), c.Function)
			to.sendCounter(m.queued, c.Queued.Seconds(), c.Function)
			to.sendCounter(m.measured, c.MeasuredWall.Seconds(), c.Function)
			to.sendCounter(m.functionCPU, c.CPU.Seconds(), c.Function)
			to.sendCounter(m.held, c.Held.Seconds(), c.Function)
		}
		if s.Waits != nil && s.Waits.Count() > 0 { // other apps have no event loop
			to <- telemetry.NewHistogramMetric(m.lag, s.Waits, telemetry.ProcessStart, lagBuckets, app)
		}
	}
}
