// Package admin is the server of a daemon's admin API, and its client. The server listens on a
// unix socket or a port, checks who may use it, and serves a list of routes, from which it also
// makes the OpenAPI document. It does not depend on the daemon: each route has its handler.
//
// Serve starts the server; the function that it returns stops it. Commands and the parents of
// instances use a Client. Both are safe for use by many goroutines.
package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
)

// Config is where a server listens, and who may use it.
type Config struct {
	Admin   configs.Admin
	Probes  configs.Probes // the server of health checks
	DataDir string         // has the socket, if the path is short enough
	Version string         // of the program, for the OpenAPI document
	Log     *slog.Logger
}

// Route is one operation of the API.
type Route struct {
	// ID is its name in the OpenAPI document. Generated clients have a function of this name.
	ID     string
	Method string
	Path   string // as for http.ServeMux: {name} is a parameter
	Help   string // one line
	// Params describes the parameters of the path and of the query.
	Params []Param
	// Body describes the body of the request, which may be anything; empty if it has none.
	Body string
	// Response is a value of the type of the answer; nil if that is not JSON.
	Response any
	// ContentType is the type of an answer that is not one JSON document. With a Response, each
	// line is a JSON document of that type.
	ContentType string
	// AlsoStatuses are the statuses besides 200 whose answer has the same type.
	AlsoStatuses []int
	// ErrorStatuses are the statuses of errors, besides those of every route.
	ErrorStatuses []int
	// Public routes need no token on the server of health checks.
	Public  bool
	Handler http.HandlerFunc
}

// Param is a parameter of a path or a query.
type Param struct {
	Name, Help string
	Format     string // of a text, as in JSON Schema; empty for any
	Number     bool
	Repeated   bool
}

// FunctionParam is the parameter of the routes of one function.
var FunctionParam = Param{Name: "name", Help: "the function's name"}

// WriteJSON writes a value as JSON. An error of the connection is dropped: the client may be gone.
func WriteJSON(w http.ResponseWriter, status int, value any) {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// WriteError answers a request with an error, an api.Problem.
func WriteError(w http.ResponseWriter, status int, format string, args ...any) {
	WriteJSON(w, status, api.Problem{Error: fmt.Sprintf(format, args...)})
}

// WriteNotFound answers that no function has this name, and suggests a similar one if there is any.
func WriteNotFound(w http.ResponseWriter, name string, functions []string) {
	hint := ""
	if near := configs.Nearest(name, functions); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	WriteError(w, http.StatusNotFound, "there is no function %q%s; there are: %s", name, hint, strings.Join(functions, ", "))
}
