package admin

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/drover-run/drover/daemon/internal/api"
)

// allRoutes appends the routes of this package: the OpenAPI document, and the profiles if they
// are configured.
func allRoutes(cfg Config, routes []Route) []Route {
	all := slices.Clone(routes)
	all = append(all, Route{
		ID: "getOpenAPI", Method: http.MethodGet, Path: api.OpenAPIPath, Help: "This document.",
		Response: map[string]any{}, Handler: func(w http.ResponseWriter, _ *http.Request) {
			document, err := NewOpenAPI(cfg, routes)
			if err != nil {
				WriteError(w, http.StatusInternalServerError, "%v", err)
				return
			}
			WriteJSON(w, http.StatusOK, document)
		},
	})
	if !cfg.Admin.Pprof {
		return all
	}
	return append(all, Route{
		ID: "getProfiles", Method: http.MethodGet, Path: "/debug/pprof/{$}", Help: "List the profiles, with admin: {pprof: true}.",
		ContentType: "text/html", Handler: pprof.Index,
	}, Route{
		ID: "getProfile", Method: http.MethodGet, Path: "/debug/pprof/{profile}", Help: "A Go profile, with admin: {pprof: true}.",
		Params: []Param{
			{Name: "profile", Help: "heap, goroutine, allocs, block, mutex, threadcreate, profile (of the CPU), trace, cmdline, symbol"},
			{Name: "seconds", Help: "for profile and trace: how long to measure", Number: true},
			{Name: "debug", Help: "1 and 2 are text, 0 is for go tool pprof", Number: true},
		},
		ContentType: "*/*", ErrorStatuses: []int{http.StatusNotFound}, Handler: handleProfile,
	})
}

func handleProfile(w http.ResponseWriter, r *http.Request) {
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

// newMux returns a handler for routes. Requests for other paths, or with other methods, get an
// api.Problem, too.
func newMux(routes []Route) http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string)
	for _, r := range routes {
		mux.HandleFunc(r.Method+" "+r.Path, r.Handler)
		methods[r.Path] = append(methods[r.Path], r.Method)
	}
	for path, allowed := range methods {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			allow := strings.Join(slices.Sorted(slices.Values(allowed)), ", ")
			w.Header().Set("Allow", allow)
			WriteError(w, http.StatusMethodNotAllowed, "%s is for %s", r.URL.Path, allow)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		WriteError(w, http.StatusNotFound, "there is no %s here; see %s", r.URL.Path, api.OpenAPIPath)
	})
	return mux
}
