package python

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import os, time
kept = []
def f(body):
    if body == b"end": os._exit(0)
    kept.append(os.urandom(64 << 20))
    began = time.process_time()
    while time.process_time() - began < 0.3: pass
`, nil, "f")
	before := p.Usage()
	if !before.Known || before.CPU <= 0 || before.Memory.Resident < 1<<20 || before.Largest != before.Memory.Resident {
		t.Fatalf("a worker uses %+v", before)
	}
	if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	after := p.Usage()
	if grown := after.CPU - before.CPU; grown < 250*time.Millisecond || grown > patience {
		t.Errorf("the CPU time has grown by %v, want 0.3 s", grown)
	}
	for what, grown := range map[string]uint64{
		"resident": after.Memory.Resident - before.Memory.Resident, "anonymous": after.Memory.Anonymous - before.Memory.Anonymous,
	} {
		if grown < 60<<20 || grown > 80<<20 {
			t.Errorf("%s memory has grown by %d bytes, want 64 MiB", what, grown)
		}
	}
	if got := after.Memory; got.Proportional > got.Resident || got.Anonymous > got.Resident {
		t.Errorf("more than all: %+v", got)
	}
	// The CPU time of a worker stays counted after its end; its memory does not.
	if _, err := call(t, p, "f", &triggers.Message{Body: []byte("end")}); err == nil {
		t.Error("a call in a worker that ends has no error")
	}
	eventually(t, "a new worker", func() bool { return p.Stats().Ready == 1 && p.Stats().Restarts[process.CauseExit] == 1 })
	if last := p.Usage(); last.CPU < after.CPU || last.Memory.Resident > after.Memory.Resident-(50<<20) {
		t.Errorf("after a restart they use %+v; before %+v", last, after)
	}
}

func TestRestartsHaveCauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		cause  process.Cause
		source string
	}{
		{"exit", process.CauseExit, "def f(body): os._exit(3)"},
		{"signal", process.CauseSignal, "def f(body): os.kill(os.getpid(), signal.SIGTERM)"},
		{"killed", process.CauseMemory, "def f(body): os.kill(os.getpid(), signal.SIGKILL)"},
		{"an empty frame", process.CauseProtocol, "def f(body): os.write(3, b'\\0' * 4)"},
		{"statistics that are no JSON", process.CauseProtocol, "def f(body): os.write(3, b'\\4\\0\\0\\0Eabc')"},
		{"too many lags", process.CauseProtocol, `
def f(body):
    payload = b'{"lags_us": [' + b','.join([b'1'] * 1001) + b']}'
    os.write(3, (1 + len(payload)).to_bytes(4, "little") + b"F" + payload)`},
		{"timeout", process.CauseTimeout, `
def f(body):
    mark(body)
    while True:
        try: time.sleep(60)
        except BaseException: pass`},
		{"start", process.CauseStart, "if os.path.exists('gone'): time.sleep(60)\ndef f(body): open('gone', 'w').close(); os._exit(0)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, mark+"import signal\nos.chdir(os.path.dirname(__file__))\n"+c.source, func(cfg *workers.Config) {
				cfg.KillGrace = 10 * time.Millisecond
				if c.cause == process.CauseStart {
					cfg.StartTimeout = 5 * time.Second
				}
			}, "f")
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			path := filepath.Join(t.TempDir(), "mark")
			f, ended := handler(t, p, "f"), make(chan error, 1)
			go func() {
				_, err := handle(ctx, f, &triggers.Message{Body: []byte(path)})
				ended <- err
			}()
			if c.cause == process.CauseTimeout {
				begun(t, path)
				cancel()
			}
			if err := <-ended; err == nil {
				t.Error("a call in a worker that dies has no error")
			}
			eventually(t, "a restart for "+string(c.cause), func() bool { return p.Stats().Restarts[c.cause] > 0 })
			if !slices.Contains(process.Causes, c.cause) {
				t.Errorf("%s is not among the causes", c.cause)
			}
		})
	}
}

// waits collects the loop lags that a worker reports.
type waits struct {
	mu   sync.Mutex
	lags []time.Duration
}

func (w *waits) add(wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lags = append(w.lags, wait)
}

func (w *waits) all() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lags)
}

func TestLoopLag(t *testing.T) {
	// It runs alone, since it judges times.
	var lags waits
	p := startApp(t, `
import asyncio, time
async def blocks(body):
    await asyncio.sleep(0.1)
    time.sleep(1)
async def waits(body): await asyncio.sleep(1.5)
`, func(c *workers.Config) { c.Lagged = lags.add }, "blocks", "waits")
	if got := lags.all(); len(got) > 0 {
		t.Errorf("before it did anything its loop had %v", got)
	}
	if _, err := call(t, p, "waits", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lag of a loop that waits", func() bool { return len(lags.all()) >= 10 })
	quiet := lags.all()
	if slices.Sort(quiet); quiet[len(quiet)/2] > 300*time.Millisecond {
		t.Errorf("a loop that only waits lags by %v", quiet)
	}
	if _, err := call(t, p, "blocks", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lag of a loop that was blocked", func() bool { return slices.Max(append(lags.all(), 0)) >= 800*time.Millisecond })
	// A block counts for all that would have waited for its end.
	for _, least := range []time.Duration{700 * time.Millisecond, 400 * time.Millisecond} {
		if !slices.ContainsFunc(lags.all(), func(d time.Duration) bool { return d >= least && d < least+100*time.Millisecond }) {
			t.Errorf("no call waited for %v to %v: %v", least, least+100*time.Millisecond, lags.all())
		}
	}
	// An idle loop reports nothing: after a second or two no more lags come.
	last, since := 0, time.Now()
	eventually(t, "rest", func() bool {
		if n := len(lags.all()); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2500*time.Millisecond
	})
}
