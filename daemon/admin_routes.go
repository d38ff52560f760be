package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drover-run/drover/daemon/internal/api"
)

// This file is what the admin server answers to: one list, of which the handlers
// are registered and the OpenAPI document is made, so that they cannot differ.

// route is one thing that can be asked for.
type route struct {
	// id is its name in the document: a client that is made of that has a function
	// of this name.
	id     string
	method string
	path   string // as http.ServeMux has it: {name} is a parameter
	help   string // a line
	// params describes the parameters: those of the path, and any others are of the query.
	params []param
	// answer is a value of the type of the answer; nil where that is no JSON.
	answer any
	// kind is the content type of an answer that is no JSON document.
	kind string
	// also are other statuses that have an answer of the same type.
	also []int
	// fails are the statuses of what can go wrong, beside those of every route.
	fails []int
	// open routes are served to those without a token, too, where probes are served.
	open  bool
	serve http.HandlerFunc
}

// param is a parameter of a path or a query.
type param struct {
	name, help string
	format     string // of a text; empty for any
	number     bool
}

var functionParam = param{name: "name", help: "the function's name"}

// routes are all of a daemon's.
func (d *Daemon) routes() []route {
	out := []route{
		{
			id: "getHealth", method: http.MethodGet, path: api.HealthPath, help: "Whether the process lives.",
			answer: api.Health{}, open: true, serve: d.answerHealth,
		},
		{
			id: "getReadiness", method: http.MethodGet, path: api.ReadyPath, help: "Whether messages are received, and if not, why.",
			answer: api.Health{}, also: []int{http.StatusServiceUnavailable}, open: true, serve: d.answerReady,
		},
		{
			id: "getMetrics", method: http.MethodGet, path: api.MetricsPath, help: "Prometheus' metrics, as text or OpenMetrics.",
			kind: "text/plain", serve: d.metricsHandler().ServeHTTP,
		},
		{
			id: "getOpenAPI", method: http.MethodGet, path: api.OpenAPIPath, help: "This document.",
			answer: map[string]any{}, serve: d.answerOpenAPI,
		},
		{
			id: "getStatus", method: http.MethodGet, path: api.StatusPath, help: "How the daemon and its functions are doing.",
			answer: api.StatusReport{}, serve: func(w http.ResponseWriter, r *http.Request) {
				answer(w, http.StatusOK, d.statusReport(r.Context()))
			},
		},
		{
			id: "getScale", method: http.MethodGet, path: api.ScalePath, help: "The latest decisions of the scaler, by target.",
			answer: map[string]api.Decided{}, serve: func(w http.ResponseWriter, _ *http.Request) {
				answer(w, http.StatusOK, d.decisions.All())
			},
		},
		{
			id: "pauseFunction", method: http.MethodPost, path: api.PausePattern, help: "Pause a function: stop receiving new messages; those in flight finish.",
			params: []param{functionParam, {name: "until", help: "when it resumes; by default when it is resumed, or the daemon restarts", format: "date-time"}},
			answer: api.Health{}, fails: []int{http.StatusBadRequest, http.StatusNotFound}, serve: d.answerPause,
		},
		{
			id: "resumeFunction", method: http.MethodPost, path: api.ResumePattern, help: "Resume a paused function.",
			params: []param{functionParam}, answer: api.Health{}, fails: []int{http.StatusNotFound}, serve: d.answerResume,
		},
	}
	out = append(out, route{
		id: "reload", method: http.MethodPost, path: api.ReloadPath, help: "Reload the configuration, entirely or not at all.",
		answer: api.Changes{}, fails: []int{http.StatusBadRequest, http.StatusUnprocessableEntity}, serve: d.answerReload,
	}, route{
		id: "followLog", method: http.MethodGet, path: api.LogPattern, help: "Follow the log of a function: one JSON object per line, and an empty line now and then.",
		params: []param{
			functionParam,
			{name: "level", help: "lowest level: debug, info, warn or error; info by default"},
			{name: "last", help: "number of earlier lines to start with; 10 by default", number: true},
			{name: "follow", help: "true, or false for earlier lines only"},
		},
		answer: LogLine{}, kind: "application/jsonl", fails: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable},
		serve: d.answerTail,
	})
	out = append(out, route{
		id: "explain", method: http.MethodGet, path: api.ExplainPattern, help: "Why a function, or a message, waits.",
		params: []param{
			{name: "about", help: "the name of a function, or the id of a message"},
			{name: "as", help: "function or message; by default a function, if there is one of that name"},
		},
		answer: api.Explanations{}, fails: []int{http.StatusBadRequest, http.StatusNotFound}, serve: d.answerExplain,
	})
	if d.cfg.Admin.Pprof {
		out = append(out, route{
			id: "getProfiles", method: http.MethodGet, path: "/debug/pprof/{$}", help: "List the profiles, with admin: {pprof: true}.",
			kind: "text/html", serve: pprof.Index,
		}, route{
			id: "getProfile", method: http.MethodGet, path: "/debug/pprof/{profile}", help: "A Go profile, with admin: {pprof: true}.",
			params: []param{
				{name: "profile", help: "heap, goroutine, allocs, block, mutex, threadcreate, profile (of the CPU), trace, cmdline, symbol"},
				{name: "seconds", help: "for profile and trace: how long to measure", number: true},
				{name: "debug", help: "1 and 2 are text, 0 is for go tool pprof", number: true},
			},
			kind: "*/*", fails: []int{http.StatusNotFound}, serve: answerProfile,
		})
	}
	return out
}

// serveRoutes serves the routes that pass.
func (d *Daemon) serveRoutes(passes func(route) bool) http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string)
	for _, r := range d.routes() {
		if !passes(r) {
			continue
		}
		mux.HandleFunc(r.method+" "+r.path, r.serve)
		methods[r.path] = append(methods[r.path], r.method)
	}
	for path, allowed := range methods {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			allow := strings.Join(slices.Sorted(slices.Values(allowed)), ", ")
			w.Header().Set("Allow", allow)
			refuse(w, http.StatusMethodNotAllowed, "%s is for %s", r.URL.Path, allow)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is no %s here; see /v1/openapi.json", r.URL.Path)
	})
	return mux
}

func answerProfile(w http.ResponseWriter, r *http.Request) {
	switch r.PathValue("profile") {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
}

func (d *Daemon) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newMetrics(d)...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, api.Problem{Error: fmt.Sprintf(format, args...)})
}

func answer(w http.ResponseWriter, status int, what any) {
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // who asked may be gone
}
