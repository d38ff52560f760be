package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/daemon/internal/daemontest"
)

// These tests type commands into the debuggers, in pseudo-terminals.

const debugConfig = `
log: {format: text}
functions:
  total: {trigger: {nats: {}}, handler: {python: {path: ./app, module: shop}}, retry: {max_attempts: 1}, timeout: 1ms}
  later: {trigger: {nats: {}}, handler: {python: {path: ./app, module: shop}}, retry: {max_attempts: 1}, timeout: 1ms}
  reload: {trigger: {nats: {}}, handler: {python: {path: ./broken, module: shop}}}
`

const debugApp = `
import functools
def logged(call):
    @functools.wraps(call)
    def wrapper(message):
        return call(message)
    return wrapper

@logged
def total(message):
    order = message.json()
    price = order["price"]
    return price * 2

async def later(message):
    text = message.text()
    breakpoint()
    return text.upper()
`

func debugDir(t *testing.T) string {
	t.Helper()
	return write(t, map[string]string{"drover.yaml": debugConfig, "app/shop.py": debugApp,
		"broken/shop.py": "VALUE = 41\nbreakpoint()\ndef reload(body): return str(VALUE)\n"})
}

const prompt = "(Pdb) "

// startTerminal runs drover in a terminal, in a directory. variables are added to the environment.
func startTerminal(t *testing.T, dir string, variables []string, args ...string) *daemontest.Terminal {
	t.Helper()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), variables...)
	return daemontest.StartTerminal(t, cmd)
}

// The debugger stops at the first line of the function, below its decorators. The timeout of 1 ms does
// not apply. In the end the terminal is restored, and the result is on standard output.
func TestDebugPython(t *testing.T) {
	t.Parallel()
	s := startTerminal(t, debugDir(t), nil, "invoke", "total", "--body", `{"price": 21}`, "--debug")
	if got := s.Expect(prompt); !strings.Contains(got, "shop.py(11)total()") || !strings.Contains(got, "-> order = message.json()") || strings.Contains(got, "Deleted") {
		t.Errorf("it stopped at\n%s", got)
	}
	s.Type("n\n")
	s.Expect("-> price = order[\"price\"]")
	s.Expect(prompt)
	s.Type("order['price'] = 50\n")
	s.Expect(prompt)
	s.Type("c\n")
	if status, rest := s.Wait(); status != ExitOK || !strings.Contains(rest, "verdict: done") || !strings.Contains(rest, "100") {
		t.Errorf("status %d\n%s", status, rest)
	}
}

// An exception opens the debugger where it was raised.
func TestDebugAnException(t *testing.T) {
	t.Parallel()
	s := startTerminal(t, debugDir(t), nil, "invoke", "total", "--body", `{"prize": 21}`, "--debug")
	s.Expect(prompt)
	s.Type("c\n")
	if got := s.Expect(prompt); !strings.Contains(got, "KeyError: 'price'") || !strings.Contains(got, "shop.py(12)total()") {
		t.Errorf("it stopped at\n%s", got)
	}
	s.Type("p order\n")
	s.Expect("{'prize': 21}")
	s.Expect(prompt)
	s.Type("q\n")
	if status, rest := s.Wait(); status != ExitFailed || !strings.Contains(rest, "verdict: reject") || !strings.Contains(rest, "KeyError: 'price'") {
		t.Errorf("status %d\n%s", status, rest)
	}
}

// breakpoint() works in async functions. Ctrl-C goes to the debugger, and does not end drover.
func TestDebugAsync(t *testing.T) {
	t.Parallel()
	s := startTerminal(t, debugDir(t), nil, "invoke", "later", "--body", "abc", "--debug")
	s.Expect("-> text = message.text()")
	s.Expect(prompt)
	s.Type("c\n")
	s.Expect(prompt)
	s.Type("p text + text\n")
	s.Expect("'abcabc'")
	s.Expect(prompt)
	s.Type("\x03")
	s.Expect("--KeyboardInterrupt--")
	s.Expect(prompt)
	s.Type("c\n")
	if status, rest := s.Wait(); status != ExitOK || !strings.Contains(rest, "ABC") {
		t.Errorf("status %d\n%s", status, rest)
	}
}

// A breakpoint also stops while the code is loaded. In a worker without a terminal it is an error with
// advice.
func TestBreakpointAtImport(t *testing.T) {
	t.Parallel()
	dir := debugDir(t)
	s := startTerminal(t, dir, nil, "invoke", "reload", "--body", "x", "--debug")
	s.Expect(prompt)
	s.Type("VALUE = 42\n")
	s.Expect(prompt)
	s.Type("c\n")
	s.Expect("shop.py(3)reload()")
	s.Expect(prompt)
	s.Type("c\n")
	if status, rest := s.Wait(); status != ExitOK || !strings.Contains(rest, "42") {
		t.Errorf("status %d\n%s", status, rest)
	}
	status, _, errs := command(t.Context(), nil, nil, "invoke", "reload", "--body", "x", "-c", filepath.Join(dir, "drover.yaml"))
	if status != ExitCode || !strings.Contains(errs, "breakpoint() needs a terminal") || !strings.Contains(errs, "drover invoke FUNCTION --debug") {
		t.Errorf("status %d\n%s", status, errs)
	}
}

func TestDebugNode(t *testing.T) {
	t.Parallel()
	needNode(t)
	dir := write(t, map[string]string{
		"drover.yaml":  "functions: {total: {trigger: {nats: {}}, handler: {node: {path: ./app}}, timeout: 1ms}}\n",
		"app/index.js": "const shop = {\n  rate: 2,\n  async total(message) {\n    const order = JSON.parse(message.text());\n    debugger;\n    return String(order.price * this.rate);\n  },\n};\nmodule.exports = shop;\n",
	})
	s := startTerminal(t, dir, nil, "invoke", "total", "--body", `{"price": 21}`, "--debug")
	s.Expect("break in index.js:4")
	s.Expect("debug> ")
	s.Type("c\r")
	s.Expect("break in index.js:5")
	s.Expect("debug> ")
	s.Type("exec('order.price = 50')\r")
	s.Expect("debug> ")
	s.Type("c\r")
	if status, rest := s.Wait(); status != ExitOK || !strings.Contains(rest, "verdict: done") || !strings.Contains(rest, "100") {
		t.Errorf("status %d\n%s", status, rest)
	}
}

func TestDebugAFunctionApp(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, environment string) {
		dir := write(t, map[string]string{"host.json": `{"version": "2.0"}`, "function_app.py": `
import azure.functions as func
app = func.FunctionApp()
@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=False)
def cleanup(timer: func.TimerRequest) -> None:
    late = timer.past_due
    print("late:", late)
`})
		s := startTerminal(t, dir, appVariables(environment), "invoke", "cleanup", "-c", dir, "--debug")
		s.Expect("-> late = timer.past_due")
		s.Expect(prompt)
		s.Type("n\n")
		s.Expect(prompt)
		s.Type("late = 'debugged'\n")
		s.Expect(prompt)
		s.Type("c\n")
		s.Expect("late: debugged")
		if status, rest := s.Wait(); status != ExitOK {
			t.Errorf("status %d\n%s", status, rest)
		}
	})
}

func TestDebugWithoutATerminal(t *testing.T) {
	t.Parallel()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out := newPrinted()
	cmd := exec.Command(program, "invoke", "total", "--body", "{}", "--debug")
	cmd.Dir, cmd.Stderr = debugDir(t), out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "--debug needs a terminal") || !strings.Contains(out.String(), "docs/debugging.md") {
		t.Errorf("%v, %s", err, out)
	}
}

// replay --debug opens the debugger at the exception of a dead letter. The dead letter is kept, unless
// --remove is given and the function completes it.
func TestReplayInADebugger(t *testing.T) {
	t.Parallel()
	dir := debugDir(t)
	file := filepath.Join(dir, "drover.yaml")
	r := &reloaded{t: t, dir: dir, file: file}
	r.send("total", `{"prize": 21}`)
	r.send("later", `{"prize": 21}`)
	r.write("drover.yaml", strings.ReplaceAll(strings.ReplaceAll(debugConfig, ", timeout: 1ms", ""), "./broken", "./app"))
	r.write("app/shop.py", debugApp+"\ndef reload(body): pass\n")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "KeyError: 'price'")
	out.WaitFor(t, "breakpoint() needs a terminal")
	if status := stop(); status != ExitOK {
		t.Fatal(out)
	}
	r.run(ExitFailed, "replay 1 --debug", "2 dead letters have the ID 1; choose one with --function", "drover dead show later 1\n  drover dead show total 1")
	r.run(ExitFailed, "replay nothing", "no dead letter or message has the ID nothing", "later, reload, total")
	r.run(ExitUsage, "replay 1 --remove", "--remove is for --debug")
	r.run(ExitFailed, "replay 1 --function tota", "there is no function tota", "did you mean total?")

	debug := func(id string, flags ...string) *daemontest.Terminal {
		t.Helper()
		s := startTerminal(t, dir, nil, append([]string{"replay", id, "--debug"}, flags...)...)
		s.Expect(prompt)
		s.Type("c\n")
		s.Expect("KeyError: 'price'")
		s.Expect(prompt)
		return s
	}
	s := debug("total:1") // the log names the message in this way
	s.Type("p message.json(), message.attempt\n")
	s.Expect("({'prize': 21}, 1)")
	s.Expect(prompt)
	s.Type("q\n")
	if status, rest := s.Wait(); status != ExitFailed || !strings.Contains(rest, "dead letter 1 of function total was kept; to replay it: drover dead replay total 1") {
		t.Errorf("status %d\n%s", status, rest)
	}
	s = debug("1", "--function", "total", "--remove") // it fails again
	s.Type("q\n")
	if status, rest := s.Wait(); status != ExitFailed || !strings.Contains(rest, "was kept") {
		t.Errorf("status %d\n%s", status, rest)
	}
	r.run(ExitOK, "dead list total", "1 dead letter\n")

	r.write("app/shop.py", strings.Replace(debugApp, `order["price"]`, `order.get("price", 0)`, 1)+"\ndef reload(body): pass\n")
	s = startTerminal(t, dir, nil, "replay", "1", "--function", "total", "--debug", "--remove")
	s.Expect(prompt)
	s.Type("c\n")
	if status, rest := s.Wait(); status != ExitOK || !strings.Contains(rest, "dead letter 1 of function total was removed") {
		t.Errorf("status %d\n%s", status, rest)
	}
	r.run(ExitOK, "dead list total", "no dead letters")
	r.run(ExitOK, "replay 1", "matched 1, replayed 1, left 0") // of later, which is the only one now
}

// drover run --watch loads saved files, and keeps the old code when the new code fails.
func TestRunWatch(t *testing.T) {
	t.Parallel()
	needNode(t)
	r := newReloaded(t, strings.Replace(reloadConfig, "  two:\n    trigger: {nats: {}}\n    handler: {exec: {command: [sh, -c, \"cat >&2\"]}}\n",
		"  two: {trigger: {nats: {}}, handler: {node: {path: ./node}}}\n", 1), "def one(body): return missing +\n")
	if err := os.Mkdir(filepath.Join(r.dir, "node"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("node/index.js", "exports.two = (m) => console.log('w1', m.text());\n")
	out, stop := startCommand(t, "run", "--watch", r.file)
	saves := 0
	loaded := func(what string) {
		t.Helper()
		saves++
		until(t, out, what, func() bool {
			all := strings.Split(out.String(), `msg="saved files were loaded"`)
			return len(all) > saves && strings.Contains(all[saves], what)
		})
	}
	out.WaitFor(t, "cannot start: app ")
	out.WaitFor(t, "SyntaxError")
	out.WaitFor(t, "drover: waiting until a file is saved")
	r.write("app/function_app.py", reloadApp)
	out.WaitFor(t, "watching for saved files")
	r.send("one", "a")
	out.WaitFor(t, "v1 a")

	r.write("app/function_app.py", strings.Replace(reloadApp, "v1", "v2", 1)) // by a temporary file
	loaded("files=function_app.py functions=one took=")
	r.send("one", "b")
	out.WaitFor(t, "v2 b")
	r.write("node/index.js", "exports.two = (m) => console.log('w2', m.text());\n")
	loaded("files=index.js functions=two took=")
	r.send("two", "c")
	out.WaitFor(t, "w2 c")

	r.write("app/function_app.py", "def one(body): return missing +\n")
	out.WaitFor(t, `msg="saved files were not loaded; the old code keeps running until the next save" files=function_app.py`)
	r.send("one", "d")
	out.WaitFor(t, "v2 d")
	r.write("app/function_app.py", strings.Replace(reloadApp, "v1", "v3", 1))
	loaded("files=function_app.py functions=one took=")
	r.send("one", "e")
	out.WaitFor(t, "v3 e")

	good, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.write("drover.yaml", strings.Replace(string(good), "  two:", "  deux:", 1))
	out.WaitFor(t, `files=drover.yaml`)
	out.WaitFor(t, "exports no function deux")
	r.write("node/index.js", "exports.deux = (m) => console.log('w3', m.text());\n")
	loaded("files=index.js functions=deux took=")
	r.send("deux", "f")
	out.WaitFor(t, "w3 f")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A function app is watched as a whole.
func TestRunWatchAFunctionApp(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		const app = "import azure.functions as func\napp = func.FunctionApp()\n@app.timer_trigger(arg_name='timer', schedule='0 0 0 1 1 *', run_on_startup=True)\ndef tick(timer: func.TimerRequest) -> None:\n    print('v1')\n"
		r := &reloaded{t: t, dir: write(t, map[string]string{"host.json": `{"version": "2.0"}`, "function_app.py": app,
			"local.settings.json": `{"IsEncrypted": false, "Values": {"FUNCTIONS_WORKER_RUNTIME": "python"}}`})}
		out, _ := startApp(t, environment, []string{"run", "--watch", r.dir})
		out.WaitFor(t, "watching for saved files")
		r.write("function_app.py", strings.Replace(app, "v1", "v2", 1)+"\n@app.route(route='more')\ndef more(req: func.HttpRequest) -> str:\n    return 'more'\n")
		out.WaitFor(t, `"msg":"saved files were loaded","files":"function_app.py","functions":"more, tick"`)
		r.write("function_app.py", "import nowhere\n")
		out.WaitFor(t, "saved files were not loaded; the old code keeps running until the next save")
		r.write("host.json", `{"version": "2.0", "functions": ["tick"]}`)
		r.write("function_app.py", app)
		out.WaitFor(t, `"removed":["more"]`)
	})
}
