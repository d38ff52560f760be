package status

import (
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// AllRoutes returns the routes of the admin API for all that this package reports.
func AllRoutes(v *View) []admin.Route {
	return slices.Concat(healthRoutes(v), metricsRoutes(v), statusRoutes(v), logRoutes(v), explainRoutes(v))
}

func statusRoutes(v *View) []admin.Route {
	return []admin.Route{{
		ID: "getStatus", Method: http.MethodGet, Path: api.StatusPath, Help: "The status of the daemon and its functions.",
		Response: api.StatusReport{}, Handler: func(w http.ResponseWriter, r *http.Request) {
			admin.WriteJSON(w, http.StatusOK, v.NewReport(r.Context()))
		},
	}, {
		ID: "getScale", Method: http.MethodGet, Path: api.ScalePath, Help: "The latest decisions of the scaler, by target.",
		Response: map[string]api.Decided{}, Handler: func(w http.ResponseWriter, _ *http.Request) {
			admin.WriteJSON(w, http.StatusOK, v.Decisions.AllDecisions())
		},
	}}
}

func healthRoutes(v *View) []admin.Route {
	return []admin.Route{{
		ID: "getHealth", Method: http.MethodGet, Path: api.HealthPath, Help: "Whether the process is alive.",
		Response: api.Health{}, Public: true, Handler: handleHealth,
	}, {
		ID: "getReadiness", Method: http.MethodGet, Path: api.ReadyPath, Help: "Whether messages are received, and if not, why.",
		Response: api.Health{}, AlsoStatuses: []int{http.StatusServiceUnavailable}, Public: true, Handler: v.handleReady,
	}}
}

func explainRoutes(v *View) []admin.Route {
	return []admin.Route{{
		ID: "explain", Method: http.MethodGet, Path: api.ExplainPattern, Help: "Why a function, or a message, waits.",
		Params: []admin.Param{
			{Name: "about", Help: "the name of a function, or the id of a message"},
			{Name: "as", Help: "function or message; by default a function, if there is one of that name"},
		},
		Response: api.Explanations{}, ErrorStatuses: []int{http.StatusBadRequest, http.StatusNotFound}, Handler: v.handleExplain,
	}}
}

func metricsRoutes(v *View) []admin.Route {
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollectors(v)...)
	return []admin.Route{{
		ID: "getMetrics", Method: http.MethodGet, Path: api.MetricsPath, Help: "Prometheus' metrics, as text or OpenMetrics.",
		ContentType: "text/plain", Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP,
	}}
}

// NewCollectors returns the collectors of the daemon's metrics and of those of the process.
// docs/metrics.md lists the daemon's. Their labels are names from the configuration, or words of a
// fixed list, and never come from a message, an app or a source.
func NewCollectors(v *View) []prometheus.Collector {
	return []prometheus.Collector{
		newInstanceMetrics(v), newFunctionMetrics(v), newAppMetrics(v), newScaleMetrics(v), newTraceMetrics(v),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(),
	}
}

func logRoutes(v *View) []admin.Route {
	return []admin.Route{{
		ID: "followLog", Method: http.MethodGet, Path: api.LogPattern, Help: "Follow the log of a function: one JSON object per line, and an empty line from time to time.",
		Params: []admin.Param{
			admin.FunctionParam,
			{Name: "level", Help: "lowest level: debug, info, warn or error; info by default"},
			{Name: "last", Help: "number of earlier lines to start with; 10 by default", Number: true},
			{Name: "follow", Help: "true, or false for earlier lines only"},
		},
		Response: telemetry.LogLine{}, ContentType: "application/jsonl", Handler: v.handleLog,
		ErrorStatuses: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable},
	}}
}
