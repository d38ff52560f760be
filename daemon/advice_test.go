package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
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
	once := appStatus{Blocked: map[string]workers.Blocked{"f": {Times: 1, Time: time.Second, Longest: time.Second, Place: "a.py:1 in f"}, "": {}}}
	twice := once.plus(appStatus{Blocked: map[string]workers.Blocked{"f": {Times: 2, Time: 3 * time.Second, Longest: 2 * time.Second, Place: "a.py:2 in g", Computes: true}}})
	for _, test := range []struct {
		app  appStatus
		want string
	}{
		{once, "function f blocked the event loop 1 times, at most for 1s, at a.py:1 in f: await an async library"},
		{twice, "3 times, at most for 2s, at a.py:2 in g: make the function sync"},
		{appStatus{Blocked: map[string]workers.Blocked{"": {Times: 1}}}, "code of no message blocked"},
	} {
		if got := test.app.blockedAdvice(); len(got) != 1 || !strings.Contains(got[0], test.want) {
			t.Errorf("%q; want %q", got, test.want)
		}
	}
	if got := once.Blocked["f"].Times; got != 1 {
		t.Errorf("to add up has changed what was added to: %d", got)
	}
	text := statusText(StatusReport{Phase: "running", Since: time.Now(), Advice: []string{"app shop: a worker takes 2.1s\nand more"}}, StatusReport{}, time.Second)
	if !strings.Contains(text, "\napp shop: a worker takes 2.1s\n") || strings.Contains(text, "and more") {
		t.Errorf("%s", text)
	}
}
