package daemon

import (
	"strings"
	"testing"
	"time"
)

// A template is advised where workers are slow to load code that could be forked,
// and it is said where one was asked for and is not possible.
func TestAdvice(t *testing.T) {
	for _, test := range []struct {
		name string
		app  appStatus
		want string
	}{
		{"slow", appStatus{Spawned: true, StartUp: 2100 * time.Millisecond}, "takes 2.1s to load the code; with start: template"},
		{"quick", appStatus{Spawned: true, StartUp: 100 * time.Millisecond}, ""},
		{"slow, and it cannot be forked", appStatus{StartUp: 2 * time.Second}, ""},
		{"asked for in vain", appStatus{Unforked: "it starts threads while it loads (telemetry)", StartUp: 2 * time.Second}, "since it starts threads while it loads (telemetry)"},
		{"of two instances one is slow", appStatus{Spawned: true}.plus(appStatus{Spawned: true, StartUp: time.Second}), "takes 1s to load"},
	} {
		if got := test.app.advice(); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: %q; want %q", test.name, got, test.want)
		}
	}
	text := statusText(StatusReport{Phase: "running", Since: time.Now(), Advice: []string{"app shop: a worker takes 2.1s\nand more"}}, StatusReport{}, time.Second)
	if !strings.Contains(text, "\napp shop: a worker takes 2.1s\n") || strings.Contains(text, "and more") {
		t.Errorf("%s", text)
	}
}
