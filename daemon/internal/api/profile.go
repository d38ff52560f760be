package api

import (
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// ProfilePattern is the path of a POST that profiles a function, for http.ServeMux and the OpenAPI document.
const ProfilePattern = "/v1/functions/{name}/profile"

// The bounds of the length of a profile, and its default.
const (
	MinProfile     = time.Second
	MaxProfile     = 5 * time.Minute
	DefaultProfile = 10 * time.Second
)

// Profile is a profile of the calls of one function.
type Profile struct {
	Function string  `json:"function"`
	Seconds  float64 `json:"seconds" desc:"how long the calls were sampled"`
	// Kind is what a sample stands for.
	Kind    string   `json:"kind" desc:"wall: samples stand for time, also for waiting; cpu: for processor time"`
	Calls   int64    `json:"calls" desc:"calls that ran meanwhile"`
	Samples int64    `json:"samples" desc:"samples of these calls"`
	Workers int      `json:"workers,omitempty" desc:"worker processes that were sampled; missing for Go functions"`
	Notes   []string `json:"notes,omitempty" desc:"why samples are missing, such as workers that ended meanwhile"`
	Pprof   []byte   `json:"pprof,omitempty" desc:"the samples in the format of go tool pprof, as base64; missing if there are none"`
}

// The values of Profile.Kind.
const (
	ProfileWall = "wall"
	ProfileCPU  = "cpu"
)

// ProfilePath is the path of the POST.
func ProfilePath(function string, length time.Duration) string {
	return "/v1/functions/" + url.PathEscape(function) + "/profile?seconds=" + strconv.FormatFloat(length.Seconds(), 'f', -1, 64)
}

// ParseProfileLength reads the length of a profile, as in the query; empty is the default.
func ParseProfileLength(seconds string) (time.Duration, error) {
	if seconds == "" {
		return DefaultProfile, nil
	}
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil || !(n >= MinProfile.Seconds() && n <= MaxProfile.Seconds()) {
		return 0, fmt.Errorf("seconds is %q; use a number from %v to %v", seconds, MinProfile.Seconds(), MaxProfile.Seconds())
	}
	return time.Duration(n * float64(time.Second)), nil
}
