package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	sending "github.com/drover-run/drover/daemon/cli/send"
	"github.com/drover-run/drover/daemon/internal/daemontest"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file has helpers for the tests of the daemon and of the command line.
const (
	patience     = daemontest.Patience
	pythonConfig = daemontest.PythonConfig
)

type printed = daemontest.Output

var (
	newPrinted = daemontest.NewOutput
	write      = daemontest.WriteFiles
	binary     = daemontest.Binary
	ask        = daemontest.SendGet
	freePort   = daemontest.FreePort
	until      = daemontest.WaitUntil
	scrape     = daemontest.Scrape
	sum        = daemontest.Sum
	balanced   = daemontest.CheckBalance
)

// command runs a command line in this process.
func command(ctx context.Context, funcs handlers.Funcs, in io.Reader, args ...string) (status int, out, errs string) {
	o, e := newPrinted(), newPrinted()
	status = Command(ctx, args, &IO{In: in, Out: o, Err: e, Env: os.LookupEnv, Environ: os.Environ, Funcs: funcs})
	return status, o.String(), e.String()
}

func TestCommandsThatOnlyPrint(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"app/function_app.py": "def greet(body): pass\n", "good.yaml": pythonConfig, "other.yaml": strings.Replace(pythonConfig, "{path: ./app", "{function: gret, path: ./app", 1), "gone.yaml": strings.Replace(pythonConfig, "./app", "./nothere", 1), "bad.yaml": "functions:\n  f:\n    handlr: {go: g}\n    timeout: soon\n",
		"go.yaml": "functions: {f: {trigger: {nats: {}}, handler: {go: g}}}", "old.yaml": strings.Replace(pythonConfig, "processes: 1", "interpreter: /nowhere/python3", 1)})
	for _, test := range []struct {
		args   string
		status int
		out    []string
		errs   []string
	}{
		{"version", 0, []string{"drover ", "(go1.", "\ncommit ", "\nworker protocol 4\n"}, nil},
		{"config schema", 0, []string{"https://json-schema.org/draft/2020-12/schema"}, nil},
		{"check DIR/good.yaml", 0, []string{"function greet", "consumer greet of stream greet", "(functions.greet.handler.python.processes)", "python3"}, nil},
		{"check DIR/bad.yaml", 1, nil, []string{"bad.yaml:3:5", "did you mean handler?", "has no key trigger", `"soon" is not a duration`}},
		{"check DIR/nowhere.yaml", 1, nil, []string{"no configuration "}},
		{"check DIR/go.yaml", 0, []string{`function f: this program has no Go function "g"`, "daemon.WithFuncs", "check it with that"}, nil},
		{"check DIR/good.yaml --load", 0, []string{"app app: its code loads"}, nil},
		{"check DIR/other.yaml", 5, nil, []string{"other.yaml:7:34: function greet: ", "function_app.py has no function gret; it has: greet; did you mean greet?"}},
		{"config show DIR/good.yaml --set", 0, []string{"functions:\n  greet:\n", "processes: 1  ", "good.yaml:7"}, nil},
		{"config show DIR/bad.yaml", 1, nil, []string{"bad.yaml:3:5"}},
		{"check DIR/old.yaml", 1, nil, []string{"/nowhere/python3", "no such file"}},
		{"check DIR/gone.yaml", 1, nil, []string{"gone.yaml:7:30: ", "nothere does not exist; path is the directory of the code"}},
		{"run DIR/gone.yaml", 1, nil, []string{"gone.yaml:7:30: ", "nothere does not exist"}},
		{"run DIR/bad.yaml", 1, nil, []string{"bad.yaml:3:5"}},
		{"run DIR/go.yaml", 3, nil, []string{"cannot start", `no Go function "g"`}},
		{"run DIR/old.yaml", 3, nil, []string{"cannot start", "/nowhere/python3"}},
		{"fly", 2, nil, []string{"drover: there is no command fly\nSee drover --help."}},
		{"invoke", 2, nil, []string{"drover: expected \"<function>\"\nSee drover invoke --help."}},
		{"dead list orders --limit -1", 2, nil, []string{"\nSee drover dead list --help."}},
		{"start", 2, nil, []string{"there is no command start; did you mean drover run?"}},
		{"strat", 2, nil, []string{"there is no command strat; did you mean drover run?"}},
		{"chekc DIR/good.yaml", 2, nil, []string{"did you mean drover check?"}},
		{"dead lst", 2, nil, []string{"did you mean drover dead list?"}},
		{"run --config=", 2, nil, []string{"--config is empty; name a configuration file"}},
		{"send greet -c DIR/good.yaml --count 0", 0, []string{"sent 0 to greet"}, nil},
		{"send greet -c DIR/good.yaml --body x -H plain", 2, nil, []string{`"plain" is not NAME=VALUE or NAME: VALUE`}},
		{"run --nonsense", 2, nil, []string{"nonsense"}},
		{"demo --for 0s", 2, nil, []string{"--for must be more than 0s"}},
		{"send f --count -1", 2, nil, []string{"--count"}},
		{"--help", 0, []string{"demo", "check", "send"}, nil},
		{"send f -c DIR/good.yaml --body x --file y", 2, nil, []string{"give one of --body, --file and --lines"}},
		{"send f -c DIR/good.yaml --lines x --file y", 2, nil, []string{"give one of --body, --file and --lines"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(test.args, "DIR", dir))
			status, out, errs := command(t.Context(), nil, strings.NewReader(""), args...)
			if status != test.status {
				t.Errorf("status %d, want %d\n%s%s", status, test.status, out, errs)
			}
			for _, want := range test.out {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
			for _, want := range test.errs {
				if !strings.Contains(errs, want) {
					t.Errorf("the errors lack %q:\n%s", want, errs)
				}
			}
		})
	}
}

// startCommand runs a command in this process until the test stops it.
func startCommand(t *testing.T, args ...string) (out *printed, stop func() int) {
	t.Helper()
	return startProgram(t, nil, nil, args...)
}

// startWithFuncs is startCommand for a program with Go functions.
func startWithFuncs(t *testing.T, funcs handlers.Funcs, args ...string) (out *printed, stop func() int) {
	t.Helper()
	return startProgram(t, funcs, nil, args...)
}

// startWithBatchFuncs is startCommand for a program with Go functions that take batches.
func startWithBatchFuncs(t *testing.T, funcs handlers.BatchFuncs, args ...string) (out *printed, stop func() int) {
	t.Helper()
	return startProgram(t, nil, funcs, args...)
}

func startProgram(t *testing.T, funcs handlers.Funcs, batched handlers.BatchFuncs, args ...string) (out *printed, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out = newPrinted()
	ended := make(chan int, 1)
	go func() {
		ended <- Command(ctx, args, &IO{In: strings.NewReader(""), Out: out, Err: out, Env: os.LookupEnv, Environ: os.Environ, Funcs: funcs, BatchFuncs: batched})
	}()
	var once sync.Once
	status := -1
	stop = func() int {
		once.Do(func() { cancel(); status = <-ended })
		return status
	}
	t.Cleanup(func() { stop() })
	return out, stop
}

func TestSendAndRun(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "lines.txt": "one\ntwo\n", "whole.txt": "a whole\nfile", "app/function_app.py": `
import drover
def greet(message):
    if message.text() == "bad": raise drover.Reject("a bad one")
    if message.text() == "failing": raise ValueError("no luck")
    print("hello", message.text(), message.attributes.get("who", "nobody"))
`})
	file := filepath.Join(dir, "drover.yaml")
	send := func(wantStatus int, want string, in string, args ...string) {
		t.Helper()
		status, out, errs := command(t.Context(), nil, strings.NewReader(in), append([]string{"send", "-c", file}, args...)...)
		if status != wantStatus || !strings.Contains(out+errs, want) {
			t.Errorf("send %v: status %d, want %d and %q\n%s%s", args, status, wantStatus, want, out, errs)
		}
	}
	// No daemon runs yet: the message waits in the store.
	send(0, "sent 1 to greet", "", "greet", "--body", "early")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "hello early nobody")

	send(0, "sent 2 to greet", "", "greet", "--lines", filepath.Join(dir, "lines.txt"), "-H", "who=me")
	out.WaitFor(t, "hello one me")
	out.WaitFor(t, "hello two me")
	send(0, "sent 1 to greet", "from a pipe\n", "greet")
	out.WaitFor(t, "hello from a pipe nobody")
	send(0, "sent 3 to greet", "", "greet", "--count", "3")
	out.WaitFor(t, "hello 3 nobody")
	send(0, "sent 2 to greet", "", "greet", "--file", filepath.Join(dir, "whole.txt"), "--count", "2")
	out.WaitFor(t, "hello a whole")
	out.WaitFor(t, "file nobody")
	send(0, "sent 1 to greet", "a whole\npipe", "greet", "--file", "-")
	out.WaitFor(t, "pipe nobody")
	send(0, "sent 5 to greet", "", "greet", "--lines", filepath.Join(dir, "lines.txt"), "--count", "5")
	send(0, "sent 1 to greet", "", "greet", "--body", "bad")
	out.WaitFor(t, "a bad one")
	send(0, "sent 1 to greet", "", "greet", "--body", "failing")
	out.WaitFor(t, "failed 2 times, the last time with: ValueError: no luck")
	out.WaitFor(t, `in greet\n    if message.text() == \"failing\"`)

	send(1, "gret is not a function of "+file+" (did you mean greet?), and no stream on connection embedded has it", "", "gret", "--body", "x")
	send(1, "nothing to send", "", "greet")
	send(1, "nowhere.txt", "", "greet", "--file", filepath.Join(dir, "nowhere.txt"))
	send(1, "nowhere.txt", "", "greet", "--lines", filepath.Join(dir, "nowhere.txt"))
	large := filepath.Join(dir, "large.txt")
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, sending.MaxBody+1)); err != nil {
		t.Fatal(err)
	}
	send(1, "large.txt is larger than 64MiB; no source accepts it", "", "greet", "--file", large)
	send(1, "no such connection", "", "some.subject", "--via", "nowhere", "--body", "x")

	// A second daemon over the same directory.
	status, _, errs := command(t.Context(), nil, nil, "run", file)
	if status != ExitStart || !strings.Contains(errs, "another daemon uses this data directory") {
		t.Errorf("the second daemon: status %d\n%s", status, errs)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("it ended with %d\n%s", status, out)
	}
}

func TestCodeThatDoesNotLoadEndsTheDaemon(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": "import nonexistent_pkg\n"})
	status, _, errs := command(t.Context(), nil, nil, "run", filepath.Join(dir, "drover.yaml"))
	if status != ExitCode {
		t.Errorf("status %d, want %d", status, ExitCode)
	}
	for _, want := range []string{"ModuleNotFoundError", "pip install nonexistent_pkg", "python3", "Traceback", "line 1"} {
		if !strings.Contains(errs, want) {
			t.Errorf("the errors lack %q:\n%s", want, errs)
		}
	}
	if status, _, errs := command(t.Context(), nil, nil, "invoke", "greet", "--body", "x", "-c", filepath.Join(dir, "drover.yaml")); status != ExitCode || !strings.Contains(errs, "nonexistent_pkg") {
		t.Errorf("invoke: status %d\n%s", status, errs)
	}
}

// check --load finds errors that only an import shows.
func TestCheckLoads(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"def greet(body): pass\nraise RuntimeError('no luck')\n": "RuntimeError: no luck",
		"def greet(order: 'Nowhere'): pass\n":                    "the annotation of its parameter order cannot be evaluated",
	} {
		dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": code})
		file := filepath.Join(dir, "drover.yaml")
		if status, _, errs := command(t.Context(), nil, nil, "check", file); status != ExitOK {
			t.Errorf("check: status %d\n%s", status, errs)
		}
		status, out, errs := command(t.Context(), nil, nil, "check", "--load", file)
		if status != ExitCode || !strings.Contains(errs, want) || !strings.Contains(errs, "function_app.py") || strings.Contains(out, "its code loads") {
			t.Errorf("check --load: status %d; want %s\n%s%s", status, want, out, errs)
		}
	}
}

var lastLine = regexp.MustCompile(`(?m)^demo: sent (\d+), done (\d+), failed (\d+), dead (\d+), lost (\d+), in [\d.]+ s(?:, with .*)?\n\z`)

func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	status, out, errs := command(t.Context(), nil, nil, "demo", "--messages", "300", "--plain", "--data-dir", dir)
	m := lastLine.FindStringSubmatch(out)
	if status != ExitOK || m == nil || m[1] != "300" || m[2] != "300" || m[3] != "0" || m[4] != "0" || m[5] != "0" {
		t.Errorf("status %d\n%s\n%s", status, out, errs)
	}
}

// child starts the built command as a separate process.
func child(t *testing.T, args ...string) (*exec.Cmd, *printed, <-chan error) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return startChild(t, exec.Command(path, args...))
}

// childOfEachTerm starts a command like child. Two SIGTERMs always count as two.
func childOfEachTerm(t *testing.T, args ...string) (*exec.Cmd, *printed, <-chan error) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), eachTermCounts+"=1")
	return startChild(t, cmd)
}

func startChild(t *testing.T, cmd *exec.Cmd) (*exec.Cmd, *printed, <-chan error) {
	t.Helper()
	out := newPrinted()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out, ended
}

func waitFor(t *testing.T, ended <-chan error, out *printed) int {
	t.Helper()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return 0
	case <-time.After(patience):
		t.Fatalf("it does not end:\n%s", out)
		return -1
	}
}

func TestADemoThatIsKilledIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, out, ended := child(t, "demo", "--for", "60s", "--plain", "--data-dir", dir)
	out.WaitFor(t, "fetch") // under load
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	_, out, ended = child(t, "demo", "--for", "1s", "--plain", "--data-dir", dir)
	status := waitFor(t, ended, out)
	m := lastLine.FindStringSubmatch(out.String())
	if status != ExitOK || m == nil || m[5] != "0" || !strings.Contains(out.String(), "were left by an earlier run") {
		t.Errorf("status %d\n%s", status, out)
	}
}

const slowApp = `
import time
def greet(body):
    print("begun", flush=True)
    time.sleep(float(body))
    print("ended", flush=True)
`

func TestStopping(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		signals    int
		status     int
	}{
		{"a stop waits", "1.5", 1, ExitOK},
		{"a second stop does not", "60", 2, ExitCutShort},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, map[string]string{"drover.yaml": pythonConfig, "app/function_app.py": slowApp})
			file := filepath.Join(dir, "drover.yaml")
			if status, _, errs := command(t.Context(), nil, nil, "send", "greet", "-c", file, "--body", test.body); status != 0 {
				t.Fatal(errs)
			}
			cmd, out, ended := childOfEachTerm(t, "run", file)
			out.WaitFor(t, "begun")
			for range test.signals {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				out.WaitFor(t, "stopping: receiving has ended")
			}
			if status := waitFor(t, ended, out); status != test.status {
				t.Errorf("status %d, want %d\n%s", status, test.status, out)
			}
			if test.status == ExitOK {
				if !strings.Contains(out.String(), "ended") {
					t.Errorf("it was cut short\n%s", out)
				}
				return
			}
			// The interrupted message was released without using an attempt.
			if err := os.WriteFile(filepath.Join(dir, "app/function_app.py"), []byte("def greet(message): print('attempt', message.attempt)\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			again, stop := startCommand(t, "run", file)
			again.WaitFor(t, "attempt 1")
			if status := stop(); status != ExitOK {
				t.Errorf("status %d\n%s", status, again)
			}
		})
	}
}

func TestAGoFunctionOfAProgram(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": "functions: {shout: {trigger: {nats: {}}, handler: {go: shout}}}"})
	file := filepath.Join(dir, "drover.yaml")
	got := make(chan string, 1)
	funcs := handlers.Funcs{"shout": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		got <- strings.ToUpper(string(m.Body))
		return nil, nil
	}}
	if status, _, errs := command(t.Context(), funcs, nil, "send", "shout", "-c", file, "--body", "hey"); status != 0 {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		status, _, _ := command(ctx, funcs, nil, "run", file)
		ended <- status
	}()
	select {
	case text := <-got:
		if text != "HEY" {
			t.Errorf("%q", text)
		}
	case <-time.After(patience):
		t.Error("the function did not run")
	}
	cancel()
	if status := <-ended; status != ExitOK {
		t.Errorf("status %d", status)
	}
}

// Both log formats print durations with a unit.
func TestDurationsInTheLog(t *testing.T) {
	for format, want := range map[string]string{"json": `"took":"1.5s"`, "text": "took=1.5s"} {
		out := newPrinted()
		(&IO{Err: out}).newLogger(configs.Log{Level: "info", Format: format}).Info("x", "took", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", format, out)
		}
	}
}
