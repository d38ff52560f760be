package python

import (
	"os"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	group "github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"
)

// TestOwnTimes checks that the delays of calls are not taken for waiting. Other programs
// delay them more, and the measurements must show that.
func TestOwnTimes(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip("the kernel does not report waits for a core")
	}
	// It runs alone, since it judges times.
	const source = `
import asyncio, threading, time

def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass

def cpu(body): busy(0.03)
def short(body): pass
def waits(body): time.sleep(0.05)
async def steps(body):
    busy(0.03)
    await asyncio.sleep(0.01)

rival = threading.Event()

def compete():
    while not rival.is_set(): busy(0.001)

def beside_another(body):
    if not hasattr(rival, "thread"):
        rival.thread = threading.Thread(target=compete, daemon=True)
        rival.thread.start()
    busy(0.03)
`
	for name, test := range map[string]struct {
		function    string
		between     string  // runs between two calls of the function
		least, most float64 // of the share of the own time in which it computes
	}{
		"computes":                              {"cpu", "short", 0.8, 1},
		"waits":                                 {"waits", "short", 0, 0.2},
		"steps":                                 {"steps", "steps", 0.8, 1},
		"computes beside a thread with the GIL": {"beside_another", "short", 0.7, 1},
		"computes beside a thread, in two threads": {"beside_another", "short", 0.7, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := startApp(t, source, func(c *workers.Config) {
				if name == "computes beside a thread, in two threads" {
					c.Settings.Threads = 2
				}
			}, test.function, "short")
			var e group.Examined
			eventually(t, "enough examined calls", func() bool {
				// Something short is just before each call: the last step of the call before it, or a call
				// of another function.
				for i := range 20 {
					if _, err := call(t, p, []string{test.function, test.between}[i%2], &triggers.Message{}); err != nil {
						t.Fatal(err)
					}
				}
				e = p.Measures()[0].Examined
				return e.Wall > time.Second
			})
			if e.Delayed < 0 || e.Locked > e.LockedMost || e.CPU+e.Delayed+e.LockedMost > e.Wall {
				t.Errorf("they contradict each other: %+v", e)
			}
			if share := e.CPU.Seconds() / (e.Wall - e.Delayed - e.LockedMost).Seconds(); share < test.least || share > test.most+1e-9 {
				t.Errorf("it computes in %.2f of its own time, want %v to %v: %+v", share, test.least, test.most, e)
			}
		})
	}
}

// Without a second thread that runs calls there is nobody to wait for: the estimate stays near zero for
// calls that wait.
func TestWaitingIsNoWaitForTheGIL(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip("the kernel does not report waits for a core")
	}
	p := startApp(t, "import time\ndef f(body): time.sleep(0.03)\n", nil, "f")
	var e group.Examined
	eventually(t, "enough examined calls", func() bool {
		_, err := call(t, p, "f", &triggers.Message{})
		e = p.Measures()[0].Examined
		return err != nil || e.Wall > 300*time.Millisecond
	})
	if e.LockedMost > e.Wall/4 {
		t.Errorf("%v of %v are a wait for the GIL", e.LockedMost, e.Wall)
	}
}
