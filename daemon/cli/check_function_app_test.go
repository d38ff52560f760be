package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// functionAppPythons are the environments of make functionapps, by the version of Python.
var functionAppPythons = []string{"3.10", "3.13"}

// inFunctionAppPythons runs a test in each environment with the library azure-functions. The tests of
// handlers/python check the worker in each of them, so most tests of the daemon use only one.
func inFunctionAppPythons(t *testing.T, test func(t *testing.T, environment string)) {
	t.Helper()
	for _, version := range functionAppPythons {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			test(t, functionAppEnvironment(t, version))
		})
	}
}

// inFunctionAppPython runs a test in the environment of one version of Python.
func inFunctionAppPython(t *testing.T, version string, test func(t *testing.T, environment string)) {
	t.Helper()
	t.Run(version, func(t *testing.T) { test(t, functionAppEnvironment(t, version)) })
}

// functionAppEnvironment returns the path of an environment with azure-functions, for a version of Python.
// It skips a test if there is none.
func functionAppEnvironment(t *testing.T, version string) string {
	t.Helper()
	environment, err := filepath.Abs(filepath.Join("../../handlers/python/testdata/functionapps", version))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(environment, "bin", "python")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("azure-functions for Python %s is missing; run: make functionapps", version)
		}
		t.Skipf("azure-functions for Python %s is missing; run: make functionapps", version)
	}
	return environment
}

// checkApp runs drover check for a function app in an environment. settings are variables of the
// daemon, as NAME=VALUE.
func checkApp(t *testing.T, environment, dir string, flags []string, settings ...string) (status int, out, errs string) {
	t.Helper()
	return commandFor(t, environment, append([]string{"check", dir}, flags...), settings...)
}

// commandFor runs a command line that reads a function app.
func commandFor(t *testing.T, environment string, args []string, settings ...string) (status int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o, e := newPrinted(), newPrinted()
	variables := append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "VIRTUAL_ENV=" + environment}, settings...)
	lookup := func(name string) (string, bool) {
		for _, variable := range variables {
			if value, found := strings.CutPrefix(variable, name+"="); found {
				return value, true
			}
		}
		return "", false
	}
	status = Command(ctx, args, &IO{In: strings.NewReader(""), Out: o, Err: e, Env: lookup, Environ: func() []string { return variables }})
	return status, o.String(), e.String()
}

// The files that most apps of these tests have.
const (
	appHost     = `{"version": "2.0"}`
	appSettings = `{"IsEncrypted": false, "Values": {"FUNCTIONS_WORKER_RUNTIME": "python", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}}`
	appHead     = "import azure.functions as func\napp = func.FunctionApp()\n"
)

// functionApp writes an app; host.json and local.settings.json are added if they are missing.
func functionApp(t *testing.T, files map[string]string) string {
	t.Helper()
	all := map[string]string{"host.json": appHost, "local.settings.json": appSettings}
	for name, text := range files {
		all[name] = text
	}
	return write(t, all)
}

// words returns a text with single spaces.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

func wantAll(t *testing.T, what, text string, want []string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(words(text), words(part)) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

// An app of model v2: decorators, a blueprint, names, retries, and settings from each place.
func TestCheckOfModelV2(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{
			"host.json": `{
  // comments are allowed
  "version": "2.0", "functionTimeout": "00:02:00",
  "extensions": {"queues": {"batchSize": 4, "newBatchThreshold": 2, "maxDequeueCount": 3, "messageEncoding": "none"}, "http": {"routePrefix": "v1"},},
}`,
			"local.settings.json": `{"Values": {"FUNCTIONS_WORKER_RUNTIME": "python", "AzureWebJobsStorage": "UseDevelopmentStorage=true", "Work": "work-items",
  "Bus__fullyQualifiedNamespace": "contoso.servicebus.windows.net", "Bus__credential": "managedidentity", "Bus__clientId": "11-22",
  "PYTHON_THREADPOOL_THREAD_COUNT": "3", "FUNCTIONS_WORKER_PROCESS_COUNT": "9", "Key": "SECRET-VALUE"}}`,
			"function_app.py": `from __future__ import annotations
import logging, os, typing
import azure.functions as func
from parts import part
logging.warning("imported with %s", os.environ["Work"])
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
app.register_functions(part)

@app.function_name("Copy-2")
@app.queue_trigger(arg_name="item", queue_name="%Work%", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="all", queue_name="copies", connection="AzureWebJobsStorage")
@app.service_bus_topic_output(arg_name="$return", topic_name="news", connection="Bus")
@app.retry(strategy="exponential_backoff", max_retry_count="6", minimum_interval="00:00:02", maximum_interval="00:01:00")
def copy(item: func.QueueMessage, all: func.Out[typing.List[str]], context: func.Context) -> str:
    return ""

@app.service_bus_queue_trigger(arg_name="msg", queue_name="steps", connection="Bus", is_sessions_enabled=True)
async def walk(msg: bytes): pass

@app.route("hello/{name?}", methods=["GET", "POST"])
def hello(req: func.HttpRequest) -> str: return ""
`,
			"parts/__init__.py": "import azure.functions as func\npart = func.Blueprint()\n\n" +
				"@part.queue_trigger(\"msg\", \"plain\", \"AzureWebJobsStorage\")\ndef plain(msg: str) -> None: pass\n",
		})
		status, out, errs := checkApp(t, environment, dir, nil, "FUNCTIONS_WORKER_PROCESS_COUNT=2", "AzureFunctionsJobHost__extensions__queues__batchSize=5")
		if status != ExitOK {
			t.Errorf("status %d", status)
		}
		wantAll(t, "the output", out, []string{
			"4 functions, model v2 (function_app.py)",
			"function Copy-2 function_app.py:9",
			"trigger queueTrigger item: storage queue work-items on AzureWebJobsStorage",
			"output queue all: storage queue copies on AzureWebJobsStorage, as text, created if missing output serviceBus $return: topic news of Service Bus on Bus",
			"concurrency 7 in flight at most timeout 2m retry 7 attempts, delays 2s to 1m, doubled each time",
			"function plain parts/__init__.py:4", "retry 3 attempts, delay 0s",
			"queue steps of Service Bus on Bus, with sessions",
			"httpTrigger req: GET, POST /v1/hello/{name?}, level anonymous",
			"Azure Service Bus at contoso.servicebus.windows.net, with a managed identity of client id 11-22 (Bus__fullyQualifiedNamespace)",
			"processes 2 (FUNCTIONS_WORKER_PROCESS_COUNT, environment)", "threads 3 per process (PYTHON_THREADPOOL_THREAD_COUNT, local.settings.json)",
			"extensions.queues.batchSize 5 (environment, AzureFunctionsJobHost__extensions__queues__batchSize): honored",
			"extensions.queues.newBatchThreshold 2 (host.json:4): honored",
		})
		wantAll(t, "the errors", errs, []string{"imported with work-items"})
		if strings.Contains(out+errs, "SECRET") {
			t.Errorf("a setting is printed:\n%s%s", out, errs)
		}
		if _, err := os.Stat(filepath.Join(dir, ".drover")); err == nil {
			t.Error("a check leaves a data directory behind")
		}
		if status, _, errs := checkApp(t, environment, dir, []string{"--strict"}); status != ExitOK {
			t.Errorf("--strict: status %d: %s", status, errs)
		}
	})
}

// An app of model v1: function.json with comments, other files and entry points, and each way to
// import a file of the app.
func TestCheckOfModelV1(t *testing.T) {
	t.Parallel()
	trigger := func(queue string) string {
		return `{"type": "queueTrigger", "direction": "in", "name": "msg", "queueName": "` + queue + `"}`
	}
	inFunctionAppPythons(t, func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{
			"common/names.py":    "NAME = 'x'",
			"common/__init__.py": "",
			"shared.py":          "import azure.functions as func\ndef run(msg: str): pass\n",
			"First/function.json": `{"scriptFile": "code.py", /* not __init__.py */ "entryPoint": "go", "bindings": [` + trigger("first") + `,
  {"type": "queue", "direction": "out", "name": "$return", "queueName": "done"}], "retry": {"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:05"}}`,
			"First/code.py":        "from ..common.names import NAME\nfrom __app__.common import names\nfrom common.names import NAME as same\ndef go(msg: str) -> str: return NAME\n",
			"Second/function.json": `{"scriptFile": "../shared.py", "entryPoint": "run", "bindings": [` + trigger("second") + `]}`,
			"queue/function.json":  `{"bindings": [` + trigger("third") + `]}`,
			"queue/__init__.py":    "import queue\nassert queue.Queue\ndef main(msg): pass\n",
			"Off/function.json":    `{"disabled": true, "bindings": [` + trigger("fourth") + `]}`,
			"Off/__init__.py":      "raise SystemExit('must not be imported')",
		})
		status, out, errs := checkApp(t, environment, dir, nil)
		if status != ExitOK {
			t.Errorf("status %d: %s", status, errs)
		}
		wantAll(t, "the output", out, []string{
			"4 functions, model v1 (function.json)",
			"function First First/code.py:4", "retry 3 attempts, delay 5s", "output queue $return: storage queue done on AzureWebJobsStorage",
			"function Off Off/__init__.py", "does not run disabled in Off/function.json",
			"function Second shared.py:2",
			"function queue queue/__init__.py:3",
			"warning: queue has the name of a module of Python's standard library",
		})
	})
}

// An error in the code is reported with its file and line, and the other functions are listed.
func TestCheckOfBrokenFunctionApps(t *testing.T) {
	t.Parallel()
	decorate := func(arguments, function string) string {
		return appHead + "\n@app.queue_trigger(" + arguments + ")\n" + function + "\n"
	}
	const usual = `arg_name="msg", queue_name="items", connection="AzureWebJobsStorage"`
	// The code of these apps loads, but a setting or one of several functions is wrong.
	loads := []string{
		"a name that Azure does not take", "a schedule out of bounds", "a schedule with four fields", "a retry that is wrong", "a connection that no setting defines",
		"a name that no setting defines", "a blueprint that is not registered", "no functions", "one of two", "the name twice",
	}
	for i, test := range []struct {
		name, app string
		out, errs []string
	}{
		{"another parameter", decorate(usual, "def one(message): pass"), nil, []string{"function_app.py:4:1: function one: the trigger's arg_name is msg, but the function's parameter is message; did you mean msg?"}},
		{"a parameter without a binding", decorate(usual, "def one(msg, when): pass"), nil, []string{"function one: its parameter when has no binding; remove it, or add a binding"}},
		{"a parameter with a star", decorate(usual, "def one(msg, **more): pass"), nil, []string{"function one: its parameter **more has no binding"}},
		{"a binding without a parameter", appHead + "@app.queue_trigger(" + usual + ")\n@app.queue_output('out', 'done', 'AzureWebJobsStorage')\ndef one(msg): pass\n", nil, []string{"function_app.py:4:1: function one: the binding out (queue) has no parameter; add a parameter out"}},
		{"an output that is no Out", appHead + "@app.queue_trigger(" + usual + ")\n@app.queue_output('out', 'done', 'AzureWebJobsStorage')\ndef one(msg, out: str): pass\n", nil, []string{"its parameter out is an output, but is annotated str; write func.Out[str]"}},
		{"an input that is an Out", decorate(usual, "def one(msg: func.Out[str]): pass"), nil, []string{"its parameter msg is an input, but is annotated func.Out[str]"}},
		{"a type that does not fit", decorate(usual, "def one(msg: func.ServiceBusMessage): pass"), nil, []string{"its parameter msg is annotated func.ServiceBusMessage, which does not fit the binding queueTrigger; use func.QueueMessage, str or bytes"}},
		{"a type that is none", decorate(usual, "def one(msg: 3): pass"), nil, []string{"function one: its "}},
		{"a union", "import typing\n" + decorate(usual, "def one(msg: typing.Optional[str]): pass"), nil, []string{"which is not a type that a binding can have; write one type"}},
		{"another context", decorate(usual, "def one(msg, context: int): pass"), nil, []string{"its parameter context is annotated int; write func.Context"}},
		{"a result that does not fit", appHead + "@app.queue_trigger(" + usual + ")\n@app.queue_output('$return', 'done', 'AzureWebJobsStorage')\ndef one(msg) -> int: return 1\n", nil, []string{"its result is annotated int, which does not fit the binding queue"}},
		{"no result", appHead + "@app.queue_trigger(" + usual + ")\n@app.queue_output('$return', 'done', 'AzureWebJobsStorage')\ndef one(msg) -> None: pass\n", nil, []string{"it returns None by its annotation, but $return is bound to queue"}},
		{"an annotation with an unknown name", decorate(usual, "def one(msg: 'Nothing'): pass"), nil, []string{"its annotations cannot be resolved: NameError"}},
		{"no trigger", appHead + "@app.queue_output('$return', 'done', 'AzureWebJobsStorage')\ndef one() -> str: return ''\n", nil, []string{"function one: it has no trigger; add exactly one"}},
		{"two triggers", appHead + "@app.queue_trigger(" + usual + ")\n@app.queue_trigger('m', 'b', 'c')\ndef one(msg, m): pass\n", nil, []string{"importing function_app.py: ValueError", "a function has exactly one trigger"}},
		{"the name twice", decorate(usual, "def one(msg): pass") + "@app.queue_trigger('msg', 'more', 'AzureWebJobsStorage')\ndef one(msg): pass\n", []string{"function one function_app.py:4"}, []string{"function_app.py:6:1: function one: another function has this name (function_app.py:4)"}},
		{"a name that Azure does not take", appHead + "@app.function_name('1st')\n@app.queue_trigger(" + usual + ")\ndef one(msg): pass\n", nil, []string{"function 1st: its name is not allowed"}},
		{"one of two", decorate(usual, "def one(msg): pass") + "@app.queue_trigger('msg', 'more', 'AzureWebJobsStorage')\ndef two(other): pass\n", []string{"function one", "storage queue items"}, []string{"function two: the trigger's arg_name is msg"}},
		{"a decorator that does not exist", appHead + "@app.queue_triger(" + usual + ")\ndef one(msg): pass\n", nil, []string{"function_app.py:3:1: importing", "did you mean queue_trigger?", "Traceback"}},
		{"a level in lower case", "import azure.functions as func\napp = func.FunctionApp(http_auth_level=\"anonymous\")\n", nil, []string{"function_app.py:2:1: importing", "write func.AuthLevel.ANONYMOUS"}},
		{"a module that is missing", appHead + "import pandaz\n", nil, []string{"function_app.py:3:1", "No module named 'pandaz'", "-m pip install pandaz", "Traceback"}},
		{"a syntax error", appHead + "def one(:\n", nil, []string{"function_app.py:3:1: importing function_app.py: SyntaxError"}},
		{"an exit", appHead + "import sys\nsys.exit(3)\n", nil, []string{"function_app.py:4:1: importing function_app.py: it calls sys.exit(3)"}},
		{"a hard exit", appHead + "import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos._exit(7)\n", nil, []string{"it sent no answer: it ended with exit status 7; its last lines:", "last words"}},
		{"two apps", appHead + "other = func.FunctionApp()\n", nil, []string{"function_app.py:3:1: function_app.py has 2 function apps, app and other"}},
		{"no app", "import azure.functions as func\nbp = func.Blueprint()\n", nil, []string{"function_app.py has no function app", "app.register_functions(bp)"}},
		{"no functions", appHead, nil, []string{"0 functions: the app has none"}},
		{"a blueprint that is not registered", appHead + "bp = func.Blueprint()\n@bp.queue_trigger(" + usual + ")\ndef lost(msg): pass\n", []string{"warning: the blueprint bp of function_app.py is not registered, so its functions do not exist: lost"}, []string{"0 functions"}},
		{"a connection that no setting defines", decorate(`arg_name="msg", queue_name="items", connection="Orders"`, "def one(msg): pass"), nil, []string{"function_app.py:4:1: function one: the connection of queueTrigger (msg): no setting Orders (nor Orders__queueServiceUri, for an identity) in the environment or in the Values of local.settings.json"}},
		{"a name that no setting defines", decorate(`arg_name="msg", queue_name="%Items%", connection="AzureWebJobsStorage"`, "def one(msg): pass"), nil, []string{"no setting Items, which queueName of queueTrigger (msg) refers to as %Items%"}},
		{"a schedule with four fields", appHead + "@app.function_name('one')\n@app.timer_trigger(arg_name='timer', schedule='*/5 * * *')\ndef one(timer: func.TimerRequest): pass\n", nil, []string{"function_app.py:4:1: function one: the schedule \"*/5 * * *\" of timerTrigger (timer): "}},
		{"a schedule out of bounds", appHead + "@app.timer_trigger(arg_name='timer', schedule='0 61 * * * *')\ndef one(timer: func.TimerRequest): pass\n", nil, []string{"function_app.py:3:1: function one: the schedule", "61"}},
		{"a retry that is wrong", appHead + "@app.queue_trigger(" + usual + ")\n@app.retry(strategy='fixed_delay', max_retry_count='x', delay_interval='1')\ndef one(msg): pass\n", nil, []string{"function one: max_retry_count of its retry is \"x\""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inFunctionAppPython(t, functionAppPythons[i%2], func(t *testing.T, environment string) {
				status, out, errs := checkApp(t, environment, functionApp(t, map[string]string{"function_app.py": test.app}), nil)
				want := ExitCode
				if slices.Contains(loads, test.name) {
					want = ExitFailed
				}
				if status != want {
					t.Errorf("status %d, want %d", status, want)
				}
				wantAll(t, "the output", out, test.out)
				wantAll(t, "the errors", errs, test.errs)
			})
		})
	}
}

// Side effects of importing an app do not affect the check, and end with it.
func TestCheckOfAppsThatAreBusyAtImport(t *testing.T) {
	t.Parallel()
	const function = "\n@app.queue_trigger('msg', 'items', 'AzureWebJobsStorage')\ndef one(msg: list[str]): pass\n"
	for i, test := range []struct{ name, app string }{
		{"it prints", "print('{\"functions\": []}')\nimport sys\nsys.stderr.write('no end of line')\n"},
		{"it closes its output", "import sys, os\nsys.stdout.close()\nos.close(1)\n"},
		{"it starts threads", "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"},
		{"it starts a process", "import subprocess\nsubprocess.Popen(['sleep', '600'])\n"},
		{"it registers what runs at exit", "import atexit, time\natexit.register(time.sleep, 600)\n"},
		{"it changes the directory", "import os\nos.chdir('/')\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inFunctionAppPython(t, functionAppPythons[i%2], func(t *testing.T, environment string) {
				began := time.Now()
				status, out, errs := checkApp(t, environment, functionApp(t, map[string]string{"function_app.py": test.app + appHead + strings.Replace(function, "list[str]", "str", 1)}), nil)
				if status != ExitOK || !strings.Contains(out, "1 function,") {
					t.Errorf("status %d: %s%s", status, out, errs)
				}
				if took := time.Since(began); took > patience/2 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// An import that does not end is killed, and its stack is reported.
func TestCheckOfAnImportThatHangs(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{"drover.yaml": "apps: {app: {start_timeout: 10s}}", "function_app.py": "import time\ndef forever(): time.sleep(600)\nforever()\n"})
		status, _, errs := checkApp(t, environment, dir, nil)
		if status != ExitCode {
			t.Errorf("status %d", status)
		}
		wantAll(t, "the errors", errs, []string{"it did not end in time", "function_app.py\", line 2 in forever"})
	})
}

// Without the library the message has the command that installs it.
func TestCheckWithoutTheLibrary(t *testing.T) {
	t.Parallel()
	dir := functionApp(t, map[string]string{"function_app.py": appHead, "requirements.txt": "azure-functions\n"})
	python := write(t, map[string]string{"bin/python": "#!/bin/sh\nexec python3 -S -E -s \"$@\"\n"})
	if err := os.Chmod(filepath.Join(python, "bin", "python"), 0o700); err != nil {
		t.Fatal(err)
	}
	status, _, errs := checkApp(t, python, dir, nil)
	if status != ExitCode {
		t.Errorf("status %d", status)
	}
	wantAll(t, "the errors", errs, []string{"the package azure-functions is not installed for", "-m venv " + filepath.Join(dir, ".venv") + " && " + filepath.Join(dir, ".venv/bin/python") + " -m pip install -r " + filepath.Join(dir, "requirements.txt")})
}

// A drover.yaml beside host.json has only the settings that Azure lacks.
func TestDroverYAMLBesideHost(t *testing.T) {
	t.Parallel()
	const app = appHead + "\n@app.queue_trigger('msg', 'items', 'AzureWebJobsStorage')\ndef one(msg): pass\n"
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{"function_app.py": app, "drover.yaml": "apps: {app: {processes: 3}}\nfunctions: {one: {concurrency: 2, retry: {max_attempts: 9}}}\n"})
		for _, path := range []string{dir, filepath.Join(dir, "drover.yaml")} {
			status, out, errs := checkApp(t, environment, path, nil)
			if status != ExitOK {
				t.Errorf("status %d: %s", status, errs)
			}
			wantAll(t, "the output", out, []string{"concurrency 2 in flight at most", "retry 9 attempts, delay 0s", "processes 3 (apps.app.processes)"})
		}
		for yaml, want := range map[string]string{
			"functions: {one: {trigger: {nats: {}}}}":  `drover.yaml:1:19: functions.one.trigger: the function app defines it; remove it. Here a function has concurrency, prefetch, timeout, max_body, retry, log_level`,
			"functions: {on: {concurrency: 2}}":        `drover.yaml:1:13: functions.on: the app has no such function; did you mean one?`,
			"connections: {c: {nats: embedded}}":       `drover.yaml:1:1: connections: connections come from the app's settings`,
			"apps: {other: {processes: 1}}":            `apps.other: a function app is one app, with the name app; write apps.app`,
			"apps: {app: {path: .}}":                   `apps.app.path: the function app defines the code`,
			"functions: {one: {concurency: 2}}":        `functions.one has no key "concurency"; did you mean concurrency?`,
			"apps: {app: {interpreter: /nowhere/py}}":  `/nowhere/py`,
			"functions: {one: {retry: {initial: 1d}}}": `"1d" is not a duration`,
		} {
			status, _, errs := checkApp(t, environment, functionApp(t, map[string]string{"function_app.py": app, "drover.yaml": yaml}), nil)
			if status != ExitFailed || !strings.Contains(errs, want) {
				t.Errorf("%s: status %d, want %q: %s", yaml, status, want, errs)
			}
		}
	})
}

// A directory without an app, and the files beside custom handlers.
func TestCheckOfOtherDirectories(t *testing.T) {
	t.Parallel()
	status, _, errs := checkApp(t, t.TempDir(), t.TempDir(), nil)
	if status != ExitFailed || !strings.Contains(errs, "neither a drover.yaml nor a host.json") {
		t.Errorf("an empty directory: status %d: %s", status, errs)
	}
	const yaml = "functions: {f: {trigger: {nats: {}}, handler: {exec: {command: [\"true\"]}}}}\n"
	for _, files := range []map[string]string{{"drover.yaml": yaml}, {"drover.yaml": yaml, "host.json": `{"version": "2.0", "customHandler": {}}`}} {
		dir := write(t, files)
		if status, out, errs := checkApp(t, "", filepath.Join(dir, "drover.yaml"), nil); status != ExitOK || !strings.Contains(out, "function f") {
			t.Errorf("status %d: %s%s", status, out, errs)
		}
	}
	status, out, errs := checkApp(t, "", write(t, map[string]string{"drover.yaml": yaml}), nil)
	if status != ExitOK || !strings.Contains(out, "function f") {
		t.Errorf("a directory with a drover.yaml: status %d: %s%s", status, out, errs)
	}
}

// Commands that use queues accept the queues of a function app.
func TestQueuesOfAFunctionApp(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		_, connection := storage(t)
		for _, queue := range []string{"items", "items-poison"} {
			if _, err := queueClient(t, connection, queue).Create(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		dir := functionApp(t, map[string]string{"function_app.py": appHead + "print('imported')\n@app.queue_trigger('msg', '%Q%', 'AzureWebJobsStorage')\ndef one(msg): pass\n"})
		settings := []string{"AzureWebJobsStorage=" + connection, "Q=items"}
		run := func(args ...string) string {
			t.Helper()
			status, out, errs := commandFor(t, environment, args, settings...)
			if status != ExitOK || errs != "" && args[0] != "capture" {
				t.Errorf("%v: status %d: %s%s", args, status, out, errs)
			}
			return out
		}
		run("send", "one", "-c", dir, "--body", "seven")
		waitLen(t, connection, "items", 1)
		file := filepath.Join(t.TempDir(), "one.jsonl")
		run("capture", "one", "-c", dir, "--count", "1", "--output", file)
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "seven") {
			t.Errorf("captured: %s, %v", text, err)
		}
		if _, err := queueClient(t, connection, "items-poison").EnqueueMessage(t.Context(), "YmFk", nil); err != nil {
			t.Fatal(err)
		}
		if out := run("dead", "list", "one", "-c", dir); !strings.Contains(out, "1 ") {
			t.Errorf("the dead letters are %s", out)
		}
	})
}
