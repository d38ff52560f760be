package apps

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/values"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/scaler/hostinfo"
)

// A template is advised if workers are slow to load code that could be forked. If a template is
// configured but impossible, that is reported.
func TestAdvice(t *testing.T) {
	for _, test := range []struct {
		name string
		app  Status
		want string
	}{
		{"slow", Status{Spawned: true, StartUp: 2100 * time.Millisecond}, "takes 2.1s to load the code; with start: template"},
		{"quick", Status{Spawned: true, StartUp: 100 * time.Millisecond}, ""},
		{"slow, and it cannot be forked", Status{StartUp: 2 * time.Second}, ""},
		{"requested but impossible", Status{Unforked: "it starts threads while it loads (telemetry)", StartUp: 2 * time.Second}, "since it starts threads while it loads (telemetry)"},
		{"of two instances one is slow", Status{Spawned: true}.Plus(Status{Spawned: true, StartUp: time.Second}), "takes 1s to load"},
	} {
		if got := test.app.SettingsAdvice(); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: %q; want %q", test.name, got, test.want)
		}
	}
	once := Status{Blocked: map[string]workers.Blocked{"f": {Times: 1, Time: time.Second, Longest: time.Second, Place: "a.py:1 in f"}, "": {}}}
	twice := once.Plus(Status{Blocked: map[string]workers.Blocked{"f": {Times: 2, Time: 3 * time.Second, Longest: 2 * time.Second, Place: "a.py:2 in g", Computes: true}}})
	for _, test := range []struct {
		app  Status
		want string
	}{
		{once, "function f blocked the event loop 1 times, at most for 1s, at a.py:1 in f: await an async library"},
		{twice, "3 times, at most for 2s, at a.py:2 in g: make the function sync"},
		{Status{Blocked: map[string]workers.Blocked{"": {Times: 1}}}, "code of no message blocked"},
	} {
		if got := test.app.BlockedAdvice(); len(got) != 1 || !strings.Contains(got[0], test.want) {
			t.Errorf("%q; want %q", got, test.want)
		}
	}
	if got := once.Blocked["f"].Times; got != 1 {
		t.Errorf("to add up has changed what was added to: %d", got)
	}
}

// With spare: auto, memory decides whether there is a spare worker.
func TestSpareWorker(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		memory, available, limit uint64
		want                     bool
	}{
		{5, 10, 100, true},
		{6, 90, 100, false}, // it needs too much
		{5, 9, 100, false},  // too little is available
		{0, 90, 100, false}, // its memory is unknown
		{5, 0, 0, false},    // that of the machine is unknown
	} {
		if got := spareFits(test.memory, hostinfo.Machine{MemoryLimit: test.limit, MemoryAvailable: test.available}); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
	for setting, want := range map[configs.Spare][2]bool{0: {false, false}, 1: {true, false}, values.SpareAuto: {true, true}} {
		if got := spareWorker(setting); got.Keep != want[0] || (got.Fits != nil) != want[1] {
			t.Errorf("spare: %v: %+v", setting, got)
		}
	}
}
