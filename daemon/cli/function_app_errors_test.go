package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// One function with an error leaves the others running, and an app that no longer loads keeps the
// one that runs.
func TestRunAFunctionAppWithErrors(t *testing.T) {
	t.Parallel()
	const good = appHead + "\n@app.queue_trigger('msg', 'items', 'AzureWebJobsStorage')\ndef one(msg: str):\n    print('first of', msg)\n"
	const wrong = "\n@app.queue_trigger('msg', 'others', 'AzureWebJobsStorage')\ndef two(other: str): pass\n"
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		dir := functionApp(t, map[string]string{"function_app.py": good + wrong})
		rewrite := func(text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, "function_app.py"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		settings := []string{"AzureWebJobsStorage=" + q.connection}
		run := func(args ...string) (int, string) {
			t.Helper()
			status, out, errs := commandFor(t, environment, append(args, "-c", dir), settings...)
			return status, out + errs
		}
		log, stop := runApp(t, dir, environment, settings...)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "items", "x")
		log.WaitFor(t, "first of x")
		log.WaitFor(t, "the trigger's arg_name is msg")
		for _, command := range []string{"status", "health"} {
			if status, text := run(command); status != ExitOK || !strings.Contains(text, "function two does not run: ") || !strings.Contains(text, "function_app.py:") {
				t.Errorf("%s: status %d: %s", command, status, text)
			}
		}
		if status, text := run("invoke", "two", "--body", "x"); status != ExitFailed || !strings.Contains(text, "function two of "+dir+" does not run") {
			t.Errorf("invoke: status %d: %s", status, text)
		}

		for text, want := range map[string]string{
			"import nowhere\n": "No module named 'nowhere'",
			appHead + "\n@app.queue_triger('msg')\ndef one(msg): pass\n": "did you mean queue_trigger?",
			strings.Replace(good, "msg: str", "m", 1):                    "the trigger's arg_name is msg",
			"import azure.functions as func\napp = 0\n":                  "has no function app",
			strings.Replace(good, "(msg: str)", "(:", 1):                 "SyntaxError",
		} {
			rewrite(text)
			if status, text := run("reload"); status != ExitCode || !strings.Contains(text, want) || !strings.Contains(text, "nothing has changed") {
				t.Errorf("reload: status %d, want %q: %s", status, want, text)
			}
		}
		q.put(t, "items", "y")
		log.WaitFor(t, "first of y")

		rewrite(strings.Replace(good, "first", "second", 1))
		if status, text := run("reload"); status != ExitOK {
			t.Errorf("reload: status %d: %s", status, text)
		}
		q.put(t, "items", "z")
		log.WaitFor(t, "second of z")
		if status, text := run("health"); status != ExitOK || strings.Contains(text, "two") {
			t.Errorf("health: status %d: %s", status, text)
		}
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// An app that cannot run ends with a status and the reason.
func TestRunAppsThatCannotRun(t *testing.T) {
	t.Parallel()
	for i, test := range []struct {
		name   string
		status int
		want   []string
		files  map[string]string
	}{
		{"a module that is missing", ExitCode, []string{"cannot start", "function_app.py:3:1: importing function_app.py", "-m pip install pandaz", "Traceback"}, map[string]string{"function_app.py": appHead + "import pandaz\n"}},
		{"no functions", ExitFailed, []string{"0 functions"}, map[string]string{"function_app.py": appHead}},
		{"no files", ExitFailed, []string{"0 functions"}, nil},
		{"a host.json with an error", ExitFailed, []string{"host.json:1:"}, map[string]string{"host.json": `{"version": }`, "function_app.py": appHead}},
		{"a connection that is missing", ExitFailed, []string{"no setting Orders"}, map[string]string{"function_app.py": appHead + "@app.queue_trigger('msg', 'items', 'Orders')\ndef one(msg): pass\n"}},
		{"only what drover lacks", ExitFailed, []string{"has no function that runs", "function one: drover has no binding blobTrigger"}, map[string]string{"function_app.py": appHead + "@app.blob_trigger('msg', 'a/{b}', 'AzureWebJobsStorage')\ndef one(msg): pass\n"}},
		{"an exit", ExitCode, []string{"sys.exit(3)"}, map[string]string{"function_app.py": appHead + "import sys\nsys.exit(3)\n"}},
		{"an interpreter that is missing", ExitStart, []string{"/nowhere/python"}, map[string]string{"function_app.py": appHead, "drover.yaml": "apps: {app: {interpreter: /nowhere/python}}"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inFunctionAppPython(t, functionAppPythons[i%2], func(t *testing.T, environment string) {
				status, out, errs := commandFor(t, environment, []string{"run", functionApp(t, test.files)})
				if status != test.status {
					t.Errorf("status %d, want %d", status, test.status)
				}
				wantAll(t, "the errors", out+errs, test.want)
			})
		})
	}
}

// A stop waits for messages in flight. The messages of a killed daemon run in the next one.
func TestStopsOfAFunctionApp(t *testing.T) {
	t.Parallel()
	const app = appHead + `
import time
@app.queue_trigger('msg', 'items', 'AzureWebJobsStorage')
@app.queue_output('$return', 'done', 'AzureWebJobsStorage')
def one(msg: func.QueueMessage) -> str:
    print("begun", msg.get_body().decode(), msg.dequeue_count)
    time.sleep(float(msg.get_body().decode().split()[0]))
    return msg.get_body().decode()
`
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		dir := functionApp(t, map[string]string{"function_app.py": app, "host.json": `{"version": "2.0", "extensions": {"queues": {"maxPollingInterval": "00:00:01"}}}`})
		settings := []string{"AzureWebJobsStorage=" + q.connection}
		cmd, log, ended := runAppChild(t, dir, environment, settings...)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "items", "2 a")
		log.WaitFor(t, "begun 2 a 1")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if status := waitFor(t, ended, log); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
		q.want(t, log, "done", "2 a")
		q.wantEmpty(t, log, "items")

		cmd, log, ended = runAppChild(t, dir, environment, settings...)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "items", "1 b")
		log.WaitFor(t, "begun 1 b 1")
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-ended
		again, stop := runApp(t, dir, environment, settings...)
		again.WaitFor(t, "begun 1 b 2") // when the lease of the killed daemon has expired
		q.want(t, again, "done", "1 b")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, again)
		}
	})
}

// The output of a function app comes from its binding, also without a daemon.
func TestInvokeOfAFunctionApp(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		dir := copyApp(t, "queue-chain")
		status, out, errs := commandFor(t, environment, []string{"invoke", "Split", "-c", dir, "--body", "a b"})
		if status != ExitOK {
			t.Errorf("status %d", status)
		}
		wantAll(t, "the output", out+errs, []string{"words (storage queue words on AzureWebJobsStorage", ": a", ": b", "counts", ": 2", "verdict: done"})
		status, _, errs = commandFor(t, environment, []string{"invoke", "doomed", "-c", dir, "--body", "x"})
		if status != ExitFailed {
			t.Errorf("status %d", status)
		}
		wantAll(t, "the errors", errs, []string{"ValueError: cannot do x", "raise ValueError"})
	})
}
