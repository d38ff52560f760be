package guard

import (
	"fmt"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// settings returns settings with these numbers.
func settings(processes, threads, coroutines int) pool.Settings {
	return pool.Settings{Processes: processes, Threads: threads, Coroutines: coroutines}
}

// If several changes are made at once, the likeliest is reverted, and the others are tried again.
func TestOneOfSeveralChangesIsUndone(t *testing.T) {
	g := New(settings(1, 1, 1), nil)
	g.InForce(0, Level{Settings: settings(1, 1, 1)}, nil)
	epoch := g.InForce(time.Second, Level{Settings: settings(2, 6, 1)}, map[string]int64{"f": 40})
	var o Order
	for i := range 3 {
		_, o = g.Fail(Call{At: time.Second, Function: "f", Message: fmt.Sprint(i), Epoch: epoch, Error: "RuntimeError: no loop"})
	}
	if o != Undo || len(g.All()) != 2 {
		t.Fatalf("order %d, %+v", o, g.All())
	}
	g.InForce(2*time.Second, Level{Settings: settings(1, 1, 1)}, nil)
	if o := g.Look(3*time.Second, map[string]int64{"f": 20}); o != Proved {
		t.Fatalf("order %d", o)
	}
	if u := g.All(); len(u) != 1 || u[0].Key() != "threads: 1" {
		t.Errorf("%+v", u)
	}
}

func TestFailureKind(t *testing.T) {
	for text, want := range map[string]string{
		"There is no current event loop in thread 'drover_12'.":   "There is no current event loop in thread ….",
		"ValueError: row 12 of /tmp/x9: can't parse it, or don't": "ValueError: row # of /tmp/#: can't parse it, or don't",
		"KeyError: \"a\"\nTraceback":                              "KeyError: …",
		"at 0x7f12ab in thread id 140 and in thread id 139.":      "at # in thread id # and in thread id #.",
		"timed out after 1m30s":                                   "timed out after #",
	} {
		if got := FailureKind(text); got != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
}

// The bounds apply to remembered settings, too.
func TestWhatIsUndoneStaysWithinTheBounds(t *testing.T) {
	given := pool.Bounds{Least: settings(2, 4, 1), Most: settings(2, 8, 1)}
	g := New(given.Least, []Undone{{Setting: "threads", Value: 1}, {Setting: "processes", Value: 1}, {Setting: "coroutines", Value: 9}})
	want := pool.Bounds{Least: settings(2, 4, 1), Most: settings(2, 4, 1)}
	if got := g.Within(given); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
