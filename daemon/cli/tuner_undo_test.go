package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/statustext"
)

// unthreadable is code that works only in a single thread.
const unthreadable = `
import os, signal, sqlite3, threading, time
_db = None

def store(body):
    global _db
    if _db is None:
        _db = sqlite3.connect(":memory:")
    time.sleep(0.005)
    _db.execute("select 1")

def alarmed(body):
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    time.sleep(0.005)
    signal.signal(signal.SIGALRM, before)

def crashes(body):
    time.sleep(0.005)
    if threading.current_thread() is not threading.main_thread():
        os.kill(os.getpid(), signal.SIGSEGV)

def fetched(body):
    import asyncio
    asyncio.get_event_loop().run_until_complete(asyncio.sleep(0.005))
`

// TestThreadsThatBreakCodeAreUndone checks code that works only in a single thread: threads that
// drover adds cost it no message and no attempt. The log, the status and explain report the error
// and the remedy, and this survives a restart, until the code changes.
func TestThreadsThatBreakCodeAreUndone(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"store", "alarmed", "fetched", "crashes"} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			dir := write(t, map[string]string{"drover.yaml": `
log: {format: text}
functions:
  ` + function + `:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
    retry: {max_attempts: 1}
`, "app/function_app.py": unthreadable})
			file := filepath.Join(dir, "drover.yaml")
			out, stop := startCommand(t, "run", file)
			out.WaitFor(t, "msg=running")
			sent := 0
			more := func(r daemon.StatusReport) { // more messages until the status reports it
				if b := r.Functions[0].Backlog; b != nil && *b < 50 {
					sendMany(t, file, function, 200)
					sent += 200
				}
			}
			r := statusOf(t, file, func(r daemon.StatusReport) bool {
				if len(r.Apps) == 1 && len(r.Apps[0].Undone) == 1 && r.Apps[0].Undone[0].Checked {
					return true
				}
				more(r)
				return false
			})
			u := r.Apps[0].Undone[0]
			if u.Setting != "threads" || u.Set != "threads: 1" || u.Value != 1 || u.Tried < 2 || u.Function != function || u.Error == "" || r.Apps[0].Threads != 1 {
				t.Errorf("%+v", r.Apps[0])
			}
			if text := (statustext.Status{Now: r}).Text(); !strings.Contains(text, "undone: threads: back to 1") || !strings.Contains(text, "set threads: 1") {
				t.Errorf("drover status:\n%s", text)
			}
			if _, text, _ := command(t.Context(), nil, nil, "explain", function, "-c", file); !strings.Contains(text, "reverted in app app: threads: back to 1") {
				t.Errorf("drover explain:\n%s", text)
			}
			r = statusOf(t, file, func(r daemon.StatusReport) bool { return r.Functions[0].Done == int64(sent) })
			if f := r.Functions[0]; f.Failed > 20 || f.Rejected > 0 {
				t.Errorf("%d of %d failed, %d are dead", f.Failed, sent, f.Rejected)
			}
			if status := stop(); status != ExitOK {
				t.Fatalf("status %d\n%s", status, out)
			}
			if n := strings.Count(out.String(), `set="threads: 1"`); n != 1 {
				t.Errorf("the key is logged %d times:\n%s", n, out)
			}

			if function != "store" {
				return // the rest is the same for all cases
			}
			out, stop = startCommand(t, "run", file)
			out.WaitFor(t, "msg=running")
			sendMany(t, file, function, 300)
			r = statusOf(t, file, func(r daemon.StatusReport) bool { return r.Functions[0].Done == 300 })
			if f := r.Functions[0]; r.Apps[0].Threads != 1 || len(r.Apps[0].Undone) != 1 || f.Failed > 0 || f.Released > 0 {
				t.Errorf("after a restart: %+v, %+v", r.Apps[0], f)
			}
			if status := stop(); status != ExitOK {
				t.Fatalf("status %d\n%s", status, out)
			}

			if err := os.WriteFile(filepath.Join(dir, "app", "function_app.py"), []byte("def "+function+"(body): pass\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, stop = startCommand(t, "run", file)
			out.WaitFor(t, "msg=running")
			if r = statusOf(t, file, func(r daemon.StatusReport) bool { return len(r.Apps) == 1 }); len(r.Apps[0].Undone) > 0 {
				t.Errorf("the code is other code, and it has %+v", r.Apps[0])
			}
			if status := stop(); status != ExitOK {
				t.Errorf("status %d\n%s", status, out)
			}
		})
	}
}

// TestIsolationThatBreaksCodeIsUndone checks that a function that blocks the event loop, and works
// on no other, is moved back to it, without using an attempt meanwhile.
func TestIsolationThatBreaksCodeIsUndone(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
log: {format: text}
apps:
  app: {path: ./app, processes: 1, threads: 4, coroutines: 4, on_blocked: isolate}
functions:
  work:
    trigger: {nats: {}}
    handler: {python: {app: app}}
    retry: {max_attempts: 1}
`, "app/function_app.py": `
import asyncio, time
loop = None

async def work(body):
    global loop
    if loop is None: loop = asyncio.get_running_loop()
    if loop is not asyncio.get_running_loop():
        raise RuntimeError(f"Task got Future <Future pending> attached to a different loop than {id(loop)}")
    time.sleep(0.15)
`})
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	sent := int64(0)
	r := statusOf(t, file, func(r daemon.StatusReport) bool {
		if b := r.Functions[0].Backlog; b != nil && *b < 10 {
			sendMany(t, file, "work", 20)
			sent += 20
		}
		return len(r.Apps) == 1 && len(r.Apps[0].Undone) == 1 && r.Apps[0].Undone[0].Checked
	})
	if u := r.Apps[0].Undone[0]; u.Setting != "on_blocked" || u.Set != "on_blocked: warn" || !strings.Contains(u.Error, "attached to a different loop") {
		t.Errorf("%+v", u)
	}
	r = statusOf(t, file, func(r daemon.StatusReport) bool { return r.Functions[0].Done+r.Functions[0].Rejected == sent })
	if f := r.Functions[0]; f.Failed > 0 || f.Rejected > 0 {
		t.Errorf("%d failed, %d of %d are dead", f.Failed, f.Rejected, sent)
	}
	if status := stop(); status != ExitOK {
		t.Fatalf("status %d\n%s", status, out)
	}
	out.WaitFor(t, "function moved to threads")
	if n := strings.Count(out.String(), `set="on_blocked: warn"`); n != 1 {
		t.Errorf("the key is logged %d times:\n%s", n, out)
	}
}
