package python

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/profiling"
	group "github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"
)

// profiled has functions that run until a file exists. Another file reports that each function runs.
const profiled = `
import asyncio, json, os, time
here = os.path.dirname(os.path.abspath(__file__))
def runs(name): open(os.path.join(here, name), "w").close()
def over(): return os.path.exists(os.path.join(here, "over"))
def compute():
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end: pass
def wait_here(): time.sleep(0.002)
def deep(n): return deep(n - 1) if n else wait_here()
def sync(body):
    runs("sync")
    while not over(): compute(); wait_here()
def other(body):
    runs("other")
    while not over(): wait_here()
def nested(body):
    runs("nested")
    while not over(): deep(200)
async def inner(): compute()
async def asynchronous(body):
    runs("asynchronous")
    while not over():
        await inner()
        await asyncio.gather(inner(), inner())
        await asyncio.sleep(0.001)
async def waits(body):
    runs("waits")
    while not over(): await asyncio.sleep(0.01)
def short(body): return json.dumps({"n": 1})
`

// profileOf profiles a function while calls of others run.
func profileOf(t *testing.T, p *workers.Pool, app, function string, calls ...string) profiling.Result {
	t.Helper()
	ended := make(chan error, len(calls))
	for _, name := range calls {
		go func() {
			_, err := call(t, p, name, &triggers.Message{})
			ended <- err
		}()
	}
	for _, name := range calls {
		eventually(t, name+" runs", func() bool {
			_, err := os.Stat(filepath.Join(app, name))
			return err == nil
		})
	}
	r, err := workers.GroupsOf(p, function)[0].Profile(t.Context(), function, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(app, "over"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range calls {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return r
}

// stacksOf returns the sampled stacks as text, the outermost first, with their samples.
func stacksOf(r profiling.Result) map[string]int64 {
	out := make(map[string]int64)
	for _, s := range r.Stacks.All {
		var names []string
		for _, at := range s.Lines {
			names = append([]string{r.Stacks.Lines[at].Function}, names...)
		}
		out[strings.Join(names, ";")] += s.Samples
	}
	return out
}

func TestProfile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		threads   int
		template  bool
		functions []string
		calls     []string
		profile   string
		want      []string // stacks that must be found
		only      string   // the outermost function of each stack; empty: any
	}{
		"main thread": {1, false, []string{"sync", "other"}, []string{"sync"}, "sync", []string{"sync;compute", "sync;wait_here"}, "sync"},
		"template":    {1, true, []string{"sync"}, []string{"sync"}, "sync", []string{"sync;compute"}, "sync"},
		"threads":     {4, false, []string{"sync", "other"}, []string{"sync", "other"}, "other", []string{"other;wait_here"}, "other"},
		"an idle one": {4, false, []string{"sync", "other"}, []string{"other"}, "sync", nil, "none"},
		"deep":        {1, false, []string{"nested"}, []string{"nested"}, "nested", []string{strings.Repeat("deep;", 127) + "wait_here"}, ""},
		"event loop": {
			1, false, []string{"other", "asynchronous", "waits"}, []string{"other", "asynchronous", "waits"}, "asynchronous",
			[]string{"asynchronous;inner;compute", "inner;compute"}, "",
		},
		"threads beside a loop": {2, false, []string{"other", "waits"}, []string{"other", "waits"}, "other", []string{"other;wait_here"}, "other"},
		"a waiting coroutine":   {1, false, []string{"asynchronous", "waits"}, []string{"waits"}, "asynchronous", nil, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var app string
			p := startApp(t, profiled, func(c *workers.Config) {
				app = c.App
				c.Settings.Threads, c.Settings.Coroutines, c.Template = test.threads, 10, test.template
			}, test.functions...)
			r := profileOf(t, p, app, test.profile, test.calls...)
			if len(r.Notes) > 0 || r.Workers == 0 || r.Stacks.Lost.Samples > 0 {
				t.Errorf("%d workers, %q, lost %+v", r.Workers, r.Notes, r.Stacks.Lost)
			}
			found := stacksOf(r)
			for _, want := range test.want {
				if found[want] == 0 {
					t.Errorf("%s is not among %v", want, found)
				}
			}
			for stack := range found {
				if outermost, _, _ := strings.Cut(stack, ";"); test.only != "" && outermost != test.only {
					t.Errorf("a stack %s", stack)
				}
			}
			for _, line := range r.Stacks.Lines {
				if own := strings.Contains(profiled, "def "+line.Function+"("); own && (line.File != filepath.Join(app, "function_app.py") || line.Line < line.Start || line.Start < 1) {
					t.Errorf("a line %+v", line)
				}
			}
		})
	}
}

// startProfile profiles a function until ctx ends or the time is over, and returns when that has begun.
func startProfile(ctx context.Context, t *testing.T, p *workers.Pool, function string, length time.Duration) <-chan profiling.Result {
	t.Helper()
	own, done := workers.GroupsOf(p, function)[0], make(chan profiling.Result, 1)
	go func() {
		r, err := own.Profile(ctx, function, length)
		for errors.Is(err, group.ErrProfiled) { // by the attempts below
			r, err = own.Profile(ctx, function, length)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		done <- r
	}()
	eventually(t, "the profile runs", func() bool {
		none, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := own.Profile(none, function, time.Hour)
		return errors.Is(err, group.ErrProfiled)
	})
	return done
}

func TestWorkersThatEndDuringAProfile(t *testing.T) {
	t.Parallel()
	var app string
	p := startApp(t, profiled+"def dies(body): os._exit(3)\n", func(c *workers.Config) { app, c.Settings.Threads = c.App, 2 }, "sync", "dies", "short")
	ended := make(chan error, 1)
	go func() {
		_, err := call(t, p, "sync", &triggers.Message{})
		ended <- err
	}()
	eventually(t, "it runs", func() bool {
		_, err := os.Stat(filepath.Join(app, "sync"))
		return err == nil
	})
	// A worker that drains sends its samples.
	done := startProfile(t.Context(), t, p, "sync", 3*time.Second)
	p.RenewWorkers(true)
	if err := os.WriteFile(filepath.Join(app, "over"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if r := <-done; len(r.Notes) > 0 || r.Workers == 0 {
		t.Errorf("%d workers, %q", r.Workers, r.Notes)
	}
	// The samples of one that is killed are missing, and the result says so.
	done = startProfile(t.Context(), t, p, "dies", 3*time.Second)
	if _, err := call(t, p, "dies", &triggers.Message{}); err == nil {
		t.Error("it did not die")
	}
	if r := <-done; len(r.Notes) == 0 || !strings.HasSuffix(r.Notes[0], "ended meanwhile; its samples are missing") {
		t.Errorf("%q", r.Notes)
	}
}

// An interrupted profile ends in the workers, too.
func TestInterruptedProfile(t *testing.T) {
	t.Parallel()
	p := startApp(t, "import threading\ndef names(body): return [thread.name for thread in threading.enumerate()]\n", nil, "names")
	sampling := func() bool {
		names, err := call(t, p, "names", &triggers.Message{})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(names), "drover-profile")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := startProfile(ctx, t, p, "names", time.Hour)
	eventually(t, "the worker samples", sampling)
	cancel()
	<-done
	eventually(t, "the worker no longer samples", func() bool { return !sampling() })
	if r, err := workers.GroupsOf(p, "names")[0].Profile(t.Context(), "names", time.Millisecond); err != nil || len(r.Notes) > 0 || r.Workers != 1 {
		t.Errorf("the next profile: %+v, %v", r, err)
	}
}
