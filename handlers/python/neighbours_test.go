package python

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// Code and libraries find nearly the same process state as a script.
func TestWhatTheAppFindsOfItsProcess(t *testing.T) {
	t.Parallel()
	const source = `
import argparse, asyncio, contextvars, multiprocessing, os, signal, subprocess, sys, threading, warnings, __main__
loop = None
try: loop = asyncio.get_event_loop()
except RuntimeError: pass  # Python 3.14
args = argparse.ArgumentParser().parse_args()
var = contextvars.ContextVar("var", default="unset")
def child(n): return n * 2
def stdin(message):
    try: input("name? ")
    except EOFError: return ["EOF", sys.stdin.read()]
def argv(message): return len(sys.argv)
def main(message): return __main__.__name__
def spawn(message):
    with multiprocessing.get_context("spawn").Pool(1) as pool: return pool.map(child, [1, 2])
def fork(message):
    with multiprocessing.get_context("fork").Pool(1) as pool: return pool.map(child, [1, 2])
def handler(message):
    signal.signal(signal.SIGUSR1, lambda *_: print("a signal"))
    os.kill(os.getpid(), signal.SIGUSR1)
    return "ok"
def warns(message):
    warnings.warn("of the app")
    return "ok"
def variable(message):
    before = var.get()
    var.set(message.id)
    return before
def child_output(message):
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return "ok"
def utf8(message):
    print("h\u00e4\u2603")
    return "h\u00e4\u2603"
def memory(message): bytearray(1 << 62)
def exits(message): sys.exit("a reason")
def asserts(message):
    assert False, "checked"
async def of_import(message):
    return loop is None or asyncio.get_running_loop() is loop
`
	for _, c := range []struct {
		name string
		args []string
		env  []string
	}{
		{"as usual", nil, nil},
		{"python -O", []string{"-O"}, nil},
		{"LANG=C", nil, []string{"LANG=C", "LC_ALL=C", "PYTHONCOERCECLOCALE=0", "PYTHONUTF8=0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := map[string]string{
				"stdin": `["EOF",""]`, "argv": "1", "main": "__main__", "spawn": "[2,4]", "fork": "[2,4]", "handler": "ok", "warns": "ok", "variable": "unset",
				"child_output": "ok", "utf8": "hä☃", "memory": "!MemoryError", "exits": "!SystemExit: a reason", "asserts": "!AssertionError: checked",
			}
			if c.args != nil {
				want["asserts"] = ""
			}
			var names []string
			for name := range want {
				names = append(names, name)
			}
			log := newLines()
			p := startApp(t, source, func(cfg *workers.Config) {
				cfg.Log = slog.New(slog.NewTextHandler(log, nil))
				cfg.Command.Args = append(c.args, cfg.Command.Args...)
				cfg.Command.Env = append(cfg.Command.Env, c.env...)
			}, names...)
			for name, output := range want {
				got, err := call(t, p, name, &triggers.Message{ID: "m"})
				failure, fails := strings.CutPrefix(output, "!")
				if fails && (err == nil || !strings.Contains(err.Error(), failure)) || !fails && (err != nil || string(got) != output) {
					var failed *handlers.Failure
					_ = errors.As(err, &failed)
					t.Errorf("%s: %s, %v, %+v; want %s", name, got, err, failed, output)
				}
			}
			log.wait(t, `msg="a signal"`)
			log.wait(t, "UserWarning: of the app", "logger=stderr")
			log.wait(t, `msg="from a child"`, "stream=stdout")
			log.wait(t, "msg=hä☃", "function=utf8")
		})
	}
	t.Run("the loop of the import", func(t *testing.T) {
		p := startApp(t, source, nil, "of_import")
		if got, err := call(t, p, "of_import", &triggers.Message{}); err != nil || string(got) != "true" {
			t.Error(fmt.Sprint(string(got), err))
		}
	})
}
