package python

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// TestRunInExecutor checks that calls that an async function passes to the event loop's executor
// run at once, from the first message on, regardless of the number of threads for sync functions. A
// barrier passes only if that many calls run at the same time.
func TestRunInExecutor(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		// The example of the Azure guide: blocking calls handed to the loop's executor.
		"run_in_executor": `
async def main(body):
    eventloop = asyncio.get_event_loop()
    tasks = [asyncio.create_task(step(eventloop, int(body))) for _ in range(int(body))]
    done, _ = await asyncio.wait(tasks)
    return sum(t.result() for t in done)
async def step(eventloop, n):
    return await eventloop.run_in_executor(None, blocking, n)
`,
		"to_thread": `
async def main(body):
    n = int(body)
    return sum(await asyncio.gather(*(asyncio.to_thread(blocking, n) for _ in range(n))))
`,
		// A sync function whose awaitable runs on the loop of its thread.
		"awaitable": `
def main(body):
    async def all(n):
        return sum(await asyncio.gather(*(asyncio.to_thread(blocking, n) for _ in range(n))))
    return all(int(body))
`,
	} {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", name, threads), func(t *testing.T) {
				t.Parallel()
				p := startApp(t, `
import asyncio, threading
barriers, guard = {}, threading.Lock()
def blocking(n):
    with guard:
        barrier = barriers.setdefault(n, threading.Barrier(n))
    barrier.wait(60)
    return 1
`+source, func(c *workers.Config) { c.Settings.Threads = threads }, "main")
				// 32 threads are for the calls at once, others as calls wait, and 512 are the most.
				for _, n := range []string{"10", "32", "100", "512"} {
					if got, err := call(t, p, "main", &triggers.Message{Body: []byte(n)}); err != nil || string(got) != n {
						t.Errorf("%s calls: %s, %v", n, got, err)
					}
				}
			})
		}
	}
}

// TestExecutor checks the executor alone: its growth, its end, and its limits.
func TestExecutor(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(soon(t), python, filepath.Join("testdata", "executor.py"))
	run.Env = append(os.Environ(), "PYTHONPATH=worker", "PYTHONDONTWRITEBYTECODE=1")
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// hold is Python code that blocks the loop until the test continues it, so that everything that
// arrives in the meantime is read at once.
const hold = mark + `
async def hold(body):
    mark(body)
    while not os.path.exists(body.decode() + ".go"): time.sleep(0.001)
`

// atOnce invokes a function many times, so that the worker reads all calls at once, and returns the
// outputs. The app contains hold.
func atOnce(t *testing.T, p *workers.Pool, function string, n int) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mark")
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := call(t, p, "hold", &triggers.Message{Body: []byte(path)}); err != nil {
			t.Error(err)
		}
	})
	begun(t, path)
	outputs := make([]string, n)
	for i := range n {
		all.Go(func() {
			output, err := call(t, p, function, &triggers.Message{Body: []byte(strconv.Itoa(i))})
			if outputs[i] = string(output); err != nil {
				outputs[i] = err.Error()
			}
		})
	}
	eventually(t, "all calls in flight", func() bool { return p.Stats().InFlight >= n+1 })
	if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	return outputs
}

func TestAsyncFunctionsThatWaitForEachOther(t *testing.T) {
	t.Parallel()
	const n = 100
	p := startApp(t, hold+fmt.Sprintf(`
here, all_here = 0, asyncio.Event()
async def f(body):
    global here
    here += 1
    if here == %d: all_here.set()
    await all_here.wait()
    return "met"
`, n), nil, "hold", "f")
	for i, output := range atOnce(t, p, "f", n) {
		if output != "met" {
			t.Errorf("call %d: %s", i, output)
		}
	}
}

// State that a function leaves in its task does not affect other messages.
func TestAsyncFunctionsAreApart(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"a context variable": `
import contextvars
var = contextvars.ContextVar("var", default="")
async def f(body):
    found = var.get()
    var.set(body.decode())
    return found or "fine"
`,
		"a cancellation": `
async def f(body):
    await asyncio.sleep(0)
    if int(body) % 3 == 0: asyncio.current_task().cancel()
    return "fine"
`,
		"a task": `
async def f(body):
    await asyncio.wait_for(asyncio.sleep(0), 10)
    asyncio.create_task(asyncio.sleep(0))
    return "fine"
`,
	} {
		t.Run(name, func(t *testing.T) {
			p := startApp(t, hold+source, nil, "hold", "f")
			for i, output := range atOnce(t, p, "f", 50) {
				if output != "fine" {
					t.Errorf("call %d: %s", i, output)
				}
			}
		})
	}
}

func TestAContextVariableThatCannotBeCompared(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, hold+`
import contextvars, gc
class Odd:
    def __eq__(self, other): raise RuntimeError("do not compare me")
var = contextvars.ContextVar("var")
var.set(Odd())
async def f(body):
    var.set(Odd())
    gc.collect()  # asyncio logs a failed task when that is collected
    return "fine"
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "hold", "f")
	for i, output := range append(atOnce(t, p, "f", 20), atOnce(t, p, "f", 1)...) {
		if output != "fine" {
			t.Errorf("call %d: %s", i, output)
		}
	}
	if text := log.String(); strings.Contains(text, "compare") {
		t.Errorf("the comparison was logged: %s", text)
	}
}

func TestTheLoopTurnsBesideFunctionsThatNeverWait(t *testing.T) {
	t.Parallel()
	p := startApp(t, hold+`
turned = []
async def f(body):
    if body == b"0" or not turned and not hasattr(asyncio, "asked"):
        asyncio.asked = True
        asyncio.get_running_loop().call_later(0, turned.append, True)
    time.sleep(0.002)
    return "turned" if turned else "not yet"
`, nil, "hold", "f")
	outputs := atOnce(t, p, "f", 50)
	turned := 0
	for _, output := range outputs {
		if output == "turned" {
			turned++
		}
	}
	if turned == 0 {
		t.Errorf("the loop did not turn between 50 calls of 2 ms each: %v", outputs)
	}
}

func TestOneOfManyAsyncCallsIsCancelled(t *testing.T) {
	t.Parallel()
	const n = 20
	p := startApp(t, mark+fmt.Sprintf(`
here, released = 0, asyncio.Event()
async def waits(body):
    global here
    here += 1
    if here == %d: mark(body)
    await released.wait()
    return "fine"
async def release(body): released.set()
`, n+1), func(c *workers.Config) { c.KillGrace = patience }, "waits", "release")
	path := filepath.Join(t.TempDir(), "mark")
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if output, err := call(t, p, "waits", &triggers.Message{Body: []byte(path)}); string(output) != "fine" || err != nil {
				t.Errorf("%s, %v", output, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(soon(t))
	all.Go(func() {
		_, err := handle(ctx, handler(t, p, "waits"), &triggers.Message{Body: []byte(path)})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v; want cancelled", err)
		}
		if _, err := call(t, p, "release", &triggers.Message{}); err != nil {
			t.Error(err)
		}
	})
	begun(t, path)
	cancel()
	all.Wait()
}
