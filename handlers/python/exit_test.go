package python

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// With every runner, functions marked with at_exit are called at a worker's end.
func TestAtExit(t *testing.T) {
	t.Parallel()
	const source = `
import asyncio, atexit, drover, time
@drover.at_exit
def first(): print("hook marked first")
@drover.at_exit
def broken(): raise ValueError("of a hook")
@drover.at_exit
async def last():
    await asyncio.sleep(0)
    print("hook marked last")
atexit.register(lambda: print("of atexit"))
def f(body): return "ok"
async def a(body): return "ok"
`
	for name, test := range map[string]struct {
		functions []string
		change    func(*workers.Config)
	}{
		"inline":           {[]string{"f"}, func(*workers.Config) {}},
		"threads":          {[]string{"f"}, func(c *workers.Config) { c.Settings.Threads = 3 }},
		"loop":             {[]string{"a"}, func(*workers.Config) {}},
		"loop and threads": {[]string{"a", "f"}, func(c *workers.Config) { c.Settings.Threads = 2 }},
		"template":         {[]string{"f"}, func(c *workers.Config) { c.Template = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := newLines()
			p := startApp(t, source, func(c *workers.Config) {
				test.change(c)
				c.Log = slog.New(slog.NewTextHandler(log, nil))
			}, test.functions...)
			for _, f := range test.functions {
				if _, err := call(t, p, f, &triggers.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			p.Scale(0)
			log.wait(t, `msg="of atexit"`)
			text := log.String()
			if a, b := strings.Index(text, "hook marked last"), strings.Index(text, "hook marked first"); a < 0 || b < a {
				t.Errorf("the last marked is not first:\n%s", text)
			}
			log.wait(t, "broken, which is marked with drover.at_exit, failed")
			log.wait(t, "ValueError: of a hook")
		})
	}
}

func TestAtExitIsBounded(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, `
import drover, time
@drover.at_exit
def hangs():
    print("hanging")
    while True:
        try: time.sleep(600)
        except BaseException: pass
def f(body): return "ok"
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	pid := p.Stats().PIDs[0]
	p.Scale(0)
	log.wait(t, "msg=hanging")
	log.wait(t, "did not end within 2 s")
	gone(t, pid)
}

// A call that is interrupted during an import leaves a half-imported module: later calls run in
// another worker.
func TestATimeoutDuringAnImport(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 2} {
		for _, async := range []bool{false, true} {
			t.Run(fmt.Sprint(threads, " threads, async ", async), func(t *testing.T) {
				t.Parallel()
				functions := []string{"work"}
				if async {
					functions = append(functions, "asleep")
				}
				log := newLines()
				var app string
				p := startApp(t, `
def work(message, context):
    import heavy
    return heavy.answer
async def asleep(message): return "awake"
`, func(c *workers.Config) {
					put(t, c.App, map[string]string{
						"registry.py": "names = set()\ndef register(name):\n    if name in names: raise ImportError(name + ' is registered already')\n    names.add(name)\n",
						"heavy.py":    "import os, time, registry\nregistry.register('heavy')\nwhile not os.path.exists(" + fmt.Sprintf("%q", filepath.Join(c.App, "go")) + "):\n    if not os.path.exists('begun'): open('begun', 'w').close(); print('importing')\n    time.sleep(0.001)\nanswer = 42\n",
					})
					app = c.App
					c.Settings.Threads, c.Log = threads, slog.New(slog.NewTextHandler(log, nil))
				}, functions...)
				pid := p.Stats().PIDs[0]
				ctx, cancel := context.WithCancel(soon(t))
				failed := make(chan error, 1)
				go func() {
					_, err := handle(ctx, handler(t, p, "work"), &triggers.Message{ID: "cut"})
					failed <- err
				}()
				log.wait(t, "msg=importing")
				cancel()
				if err := <-failed; err == nil {
					t.Fatal("the call that was interrupted did not fail")
				}
				log.wait(t, "level=WARN", "worker replaced at its request", "while it imported a module")
				put(t, app, map[string]string{"go": ""})
				for range 5 {
					if got, err := call(t, p, "work", &triggers.Message{ID: "later"}); err != nil || string(got) != "42" {
						t.Errorf("a later call: %s, %v", got, err)
					}
				}
				gone(t, pid)
			})
		}
	}
}

// The monkey patches of gevent and eventlet turn later threads into greenlets.
func TestMonkeyPatch(t *testing.T) {
	t.Parallel()
	const gevent = `
from gevent import monkey
monkey.patch_all()
import gevent, time
def fetch(body):
    jobs = [gevent.spawn(lambda i=i: (gevent.sleep(0.05), i)[1]) for i in range(5)]
    gevent.joinall(jobs)
    print("joined")
    return [job.value for job in jobs]
def hangs(message, context):
    print("hanging")
    time.sleep(600)
async def beside(body): return "beside"
`
	interpreter := withPackage(t, "gevent")
	for _, mode := range []struct {
		name      string
		threads   int
		functions []string
	}{{"inline", 1, []string{"fetch", "hangs"}}, {"threads", 4, []string{"fetch"}}, {"loop", 1, []string{"fetch", "beside"}}} {
		t.Run(mode.name, func(t *testing.T) {
			log := newLines()
			p := startApp(t, gevent, func(c *workers.Config) {
				c.Command.Path, c.Settings.Threads, c.Log = interpreter, mode.threads, slog.New(slog.NewTextHandler(log, nil))
			}, mode.functions...)
			for range 3 {
				if got, err := call(t, p, "fetch", &triggers.Message{}); err != nil || string(got) != "[0,1,2,3,4]" {
					t.Fatalf("%s, %v", got, err)
				}
			}
			log.wait(t, "msg=joined", "function=fetch")
			switch mode.name {
			case "loop":
				if got, err := call(t, p, "beside", &triggers.Message{}); err != nil || string(got) != "beside" {
					t.Errorf("%s, %v", got, err)
				}
			case "inline":
				pid := p.Stats().PIDs[0]
				ctx, cancel := context.WithCancel(soon(t))
				ended := make(chan error, 1)
				go func() {
					_, err := handle(ctx, handler(t, p, "hangs"), &triggers.Message{})
					ended <- err
				}()
				log.wait(t, "msg=hanging")
				cancel()
				if err := <-ended; err == nil {
					t.Error("a call that was cancelled did not fail")
				}
				if now := p.Stats().PIDs[0]; now != pid {
					t.Error("the worker had to be killed")
				}
			}
		})
	}
}

// withPackage returns an interpreter of this machine that has a package.
func withPackage(t *testing.T, name string) string {
	t.Helper()
	paths := everyInterpreter(t)
	for _, path := range paths {
		if exec.Command(path, "-c", "import "+name).Run() == nil {
			return path
		}
	}
	text := fmt.Sprintf("no Python of this machine has %s; install it with: %s -m pip install %s", name, paths[0], name)
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	t.Skip(text)
	return ""
}
