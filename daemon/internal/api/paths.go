package api

import (
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"time"
)

// The paths of requests that have no parameters.
const (
	HealthPath  = "/healthz"
	ReadyPath   = "/readyz"
	MetricsPath = "/metrics"
	OpenAPIPath = "/v1/openapi.json"
	StatusPath  = "/v1/status"
	ScalePath   = "/v1/scale"
	ReloadPath  = "/v1/reload"
)

// The patterns of paths with parameters, for http.ServeMux and the OpenAPI document.
const (
	PausePattern    = "/v1/functions/{name}/pause"
	ResumePattern   = "/v1/functions/{name}/resume"
	LogPattern      = "/v1/functions/{name}/log"
	MessagesPattern = "/v1/functions/{name}/messages"
	ExplainPattern  = "/v1/explain"
)

// PausePath is the path of a POST that pauses a function, until a time, or without an end if
// until is zero. With paused false the function resumes.
func PausePath(function string, paused bool, until time.Time) string {
	path := "/v1/functions/" + url.PathEscape(function)
	switch {
	case !paused:
		return path + "/resume"
	case until.IsZero():
		return path + "/pause"
	}
	return path + "/pause?until=" + url.QueryEscape(until.Format(time.RFC3339Nano))
}

// ExplainPath is the path of a GET that explains a function or a message. as is function or
// message, or empty for a function if there is one of that name.
func ExplainPath(about, as string) string {
	query := url.Values{"about": {about}}
	if as != "" {
		query.Set("as", as)
	}
	return ExplainPattern + "?" + query.Encode()
}

// LogRequest is a request for the log of a function.
type LogRequest struct {
	Function string
	Level    slog.Level // the lowest that is sent
	Last     int        // the number of earlier lines to start with
	Follow   bool       // whether later lines are sent, too
}

// RequestPath is the path of the GET.
func (r LogRequest) RequestPath() string {
	query := url.Values{"level": {r.Level.String()}, "last": {strconv.Itoa(r.Last)}, "follow": {strconv.FormatBool(r.Follow)}}
	return "/v1/functions/" + url.PathEscape(r.Function) + "/log?" + query.Encode()
}

// ParseLogRequest reads the query of such a GET, with the defaults for what it lacks. The error
// names the parameter and its valid values.
func ParseLogRequest(function string, query url.Values) (r LogRequest, err error) {
	r = LogRequest{Function: function, Level: slog.LevelInfo, Last: 10, Follow: true}
	if text := query.Get("level"); text != "" {
		if err := r.Level.UnmarshalText([]byte(text)); err != nil {
			return r, fmt.Errorf("level is %q; use debug, info, warn or error", text)
		}
	}
	if text := query.Get("last"); text != "" {
		if r.Last, err = strconv.Atoi(text); err != nil || r.Last < 0 {
			return r, fmt.Errorf("last is %q; use a number of lines", text)
		}
	}
	if text := query.Get("follow"); text != "" {
		if r.Follow, err = strconv.ParseBool(text); err != nil {
			return r, fmt.Errorf("follow is %q; use true or false", text)
		}
	}
	return r, nil
}
