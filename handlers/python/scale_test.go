package python

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// pace is the interval between checks of other processes.
const pace = 5 * time.Millisecond

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func TestScale(t *testing.T) {
	t.Parallel()
	p := startApp(t, mark+`
def f(body):
    if body == b"ok": return str(os.getpid())
    path = body.decode()
    mark(body)
    while not os.path.exists(path + ".go"): time.sleep(0.005)
    return "fine"
`, nil, "f")
	if got := handler(t, p, "f").Slots().Capacity(); got != 1 {
		t.Errorf("one worker of one thread offers %d slots", got)
	}
	p.Scale(3)
	eventually(t, "three workers", func() bool { return p.Stats().Ready == 3 })
	eventually(t, "their slots", func() bool { return handler(t, p, "f").Slots().Capacity() == 3 })
	if s := p.Stats(); s.StartUp <= 0 || len(s.Restarts) != 0 || s.Wanted != 3 {
		t.Errorf("%+v; want a start-up time, and no restarts", s)
	}

	// Two are busy. On the way down the idle one goes at once, and of the others one
	// when it has finished; nothing is cut short.
	dir := t.TempDir()
	var calls sync.WaitGroup
	busy := make(map[int]bool)
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		calls.Go(func() {
			if got, err := call(t, p, "f", &triggers.Message{Body: []byte(path)}); err != nil || string(got) != "fine" {
				t.Errorf("a call in a worker that retires: %s, %v", got, err)
			}
		})
		busy[begun(t, path)] = true
	}
	p.Scale(1)
	eventually(t, "the idle one has gone", func() bool { s := p.Stats(); return s.Ready == 1 && s.Retiring == 1 && s.InFlight == 2 })
	if left := p.Stats().PIDs; !busy[left[0]] {
		t.Error("of the busy and the idle a busy one was chosen, and the idle one stays")
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name+".go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	calls.Wait()
	eventually(t, "the retired one has gone", func() bool { s := p.Stats(); return s.Ready == 1 && s.Retiring == 0 })

	// To none, and back with the first message.
	p.Scale(0)
	eventually(t, "all have gone", func() bool { s := p.Stats(); return s.Ready+s.Retiring+s.Starting == 0 })
	eventually(t, "room for the first message", func() bool { return handler(t, p, "f").Slots().Capacity() == 1 })
	if _, err := call(t, p, "f", &triggers.Message{Body: []byte("ok")}); err != nil {
		t.Errorf("the first message: %v", err)
	}
	if s := p.Stats(); s.Ready != 1 || len(s.Restarts) != 0 {
		t.Errorf("%+v; want one worker, and no restarts", s)
	}
}

// Calls that arrive while workers start and stop are all answered, and none is blamed for a stopped
// worker.
func TestScaleUnderLoad(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
def f(body): return body
async def g(body): return body
`, func(c *workers.Config) { c.Settings.Threads = 2 }, "f", "g")
	const goroutines, each, pace = 8, 500, 200 // the number of workers changes every 200 calls
	var calls sync.WaitGroup
	var done atomic.Int64
	for range goroutines {
		for _, name := range []string{"f", "g"} {
			calls.Go(func() {
				for range each {
					if _, err := call(t, p, name, &triggers.Message{Body: []byte("x")}); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					if n := done.Add(1); n%pace == 0 {
						p.Scale([]int{3, 1, 2, 0, 4}[n/pace%5])
					}
				}
			})
		}
	}
	calls.Wait()
}

// A worker that died is replaced, also while others start and stop.
func TestScaleAfterADeath(t *testing.T) {
	t.Parallel()
	p := startApp(t, "import os\ndef f(body): os._exit(3)\n", func(c *workers.Config) { c.Settings.Processes = 2 }, "f")
	eventually(t, "two workers", func() bool { return p.Stats().Ready == 2 })
	if _, err := call(t, p, "f", &triggers.Message{}); err == nil {
		t.Error("a call in a worker that ends has no error")
	}
	p.Scale(3)
	eventually(t, "three workers", func() bool { return p.Stats().Ready == 3 })
	if s := p.Stats(); len(s.Restarts) != 1 || s.Restarts[process.CauseExit] != 1 {
		t.Errorf("%+v; want one restart", s)
	}
}
