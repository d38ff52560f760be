package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

func TestRunQueueChain(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, environment string) {
		q := queues{connection: appStorage(t, environment)}
		dir := copyApp(t, "queue-chain")
		q.create(t, "orders")
		q.put(t, "orders", `{"id":7,"lines":[{"price":5,"count":2},{"price":1,"count":3}]}`)
		log, stop := runApp(t, dir, environment, "AzureWebJobsStorage="+q.connection)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "sentences", "a b c", "   ")
		q.put(t, "describe", "hello")
		q.put(t, "blobs", "\xff\x00\x01")
		q.put(t, "doomed", "x")
		q.want(t, log, "totals", `{"id": 7, "total": 13}`)
		if line := wantLine(t, log, "INFO", "price", "order 7 costs 13"); line.Invocation == "" {
			t.Errorf("the line has no invocation: %+v", line)
		}
		q.want(t, log, "words", "a", "b", "c")
		q.want(t, log, "counts", "3", "0")
		q.want(t, log, "reversed", "0100ff")
		var seen struct {
			ID, Body         string
			Dequeued         int       `json:"dequeue_count"`
			Inserted         time.Time `json:"insertion_time"`
			Expires, Visible string    `json:"-"`
			Receipt          bool      `json:"pop_receipt"`
		}
		described := q.take(t, log, "described", 1)[0]
		if err := json.Unmarshal([]byte(described), &seen); err != nil {
			t.Fatal(err)
		}
		if seen.ID == "" || seen.Body != "hello" || seen.Dequeued != 1 || !seen.Receipt || time.Since(seen.Inserted).Abs() > patience || strings.Count(described, "+00:00") != 3 {
			t.Errorf("the message is %s", described)
		}
		waitLen(t, q.connection, "doomed-poison", 1)
		status, out, errs := commandFor(t, environment, []string{"dead", "list", "doomed", "-c", dir, "--json"}, "AzureWebJobsStorage="+q.connection)
		if status != ExitOK || !strings.Contains(out, "raise ValueError") || !strings.Contains(out, `"attempts":3`) && !strings.Contains(out, `"attempt":3`) {
			t.Errorf("the dead letters: status %d: %s%s", status, out, errs)
		}
		q.want(t, log, "doomed-poison", "x")
		for n := range 3 {
			if text := fmt.Sprintf("cannot do x (try %d)", n+1); !strings.Contains(log.String(), text) {
				t.Errorf("the log lacks %q:\n%s", text, log)
			}
		}
		q.wantEmpty(t, log, "orders", "sentences", "describe", "blobs", "doomed", "words")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

func TestRunBlueprintsAndOtherQueues(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		log, stop := runApp(t, copyApp(t, "blueprints"), environment, "AzureWebJobsStorage="+q.connection)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "bills", "x")
		q.want(t, log, "paid", "paid x")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// Functions that drover does not run are named at the start and in the status, and the others run.
func TestRunMixedUnknown(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		dir := copyApp(t, "mixed-unknown")
		log, stop := runApp(t, dir, environment, "AzureWebJobsStorage="+q.connection)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "plain", "x")
		q.want(t, log, "plain-out", "x!")
		for _, want := range []string{"blobTrigger", "eventHubTrigger", "cosmosDB"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, log)
			}
		}
		_, out, errs := commandFor(t, environment, []string{"status", "-c", dir, "--once"})
		wantAll(t, "the status", out+errs, []string{"works", "function on_upload does not run: drover has no binding blobTrigger"})
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
		status, out, errs := commandFor(t, environment, []string{"check", dir}, "AzureWebJobsStorage="+q.connection)
		if status != ExitOK {
			t.Errorf("status %d: %s%s", status, out, errs)
		}
		wantAll(t, "the check", out, []string{"function on_upload does not run: drover has no binding blobTrigger", "function on_event does not run: drover has no binding eventHubTrigger", "function archive does not run: drover has no binding cosmosDB"})
		if status, _, _ := commandFor(t, environment, []string{"check", dir, "--strict"}, "AzureWebJobsStorage="+q.connection); status != ExitFailed {
			t.Errorf("--strict: status %d", status)
		}
	})
}

func TestCheckOfIdentities(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		status, out, errs := commandFor(t, environment, []string{"check", copyApp(t, "identity")})
		if status != ExitOK {
			t.Errorf("status %d: %s", status, errs)
		}
		wantAll(t, "the check", out, []string{
			"2 functions", "00000000-0000-0000-0000-000000000001", "contoso.servicebus.windows.net, with the default identity", "fabrikam", "AzureWebJobsStorage__queueServiceUri",
			"extensions.queues.batchSize 4", "functionTimeout 00:01:00", "2 (FUNCTIONS_WORKER_PROCESS_COUNT, local.settings.json)", "threads 3 per process (PYTHON_THREADPOOL_THREAD_COUNT, local.settings.json)",
		})
	})
}

func TestRunSettings(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		q := queues{emulatedStorage(t), true}
		dir := copyApp(t, "settings")
		settings := []string{"AzureWebJobsStorage=" + q.connection, "AzureWebJobsSecondary=" + q.connection, "AzureFunctionsJobHost__logging__logLevel__default=Information"}
		q.create(t, "in-one", "late", "off")
		for n := range 10 {
			q.put(t, "in-one", fmt.Sprint(n))
		}
		q.put(t, "late", "x")
		q.put(t, "off", "x")
		log, stop := runApp(t, dir, environment, settings...)
		want := func(most int, greeting string, bodies ...string) {
			t.Helper()
			for _, text := range q.take(t, log, "out-one", len(bodies)) {
				var got struct {
					Body, Greeting, Runtime string
					Most                    int
				}
				if err := json.Unmarshal([]byte(text), &got); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(bodies, got.Body) || got.Greeting != greeting || got.Runtime != "python" || got.Most > most {
					t.Errorf("the result is %s; want at most %d at once, and %q", text, most, greeting)
				}
			}
		}
		want(1, "hi from settings", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
		q.want(t, log, "late-poison", "x")
		log.WaitFor(t, "message dead-lettered")
		if !strings.Contains(log.String(), "disabled by AzureWebJobs.off.Disabled") {
			t.Errorf("the log does not name the disabled functions: %s", log)
		}
		waitLen(t, q.connection, "off", 1)
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}

		// The environment wins over local.settings.json, and drover.yaml over host.json.
		if err := os.WriteFile(filepath.Join(dir, "drover.yaml"), []byte("functions: {one: {concurrency: 3}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for n := range 30 {
			q.put(t, "in-one", fmt.Sprint(n))
		}
		log, stop = runApp(t, dir, environment, append(settings, "GREETING=x")...)
		most := 0
		for _, text := range q.take(t, log, "out-one", 30) {
			var got struct {
				Most     int
				Greeting string
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil || got.Greeting != "x" {
				t.Errorf("the result is %s, %v", text, err)
			}
			most = max(most, got.Most)
		}
		if most > 3 {
			t.Errorf("%d at once; want at most 3", most)
		}
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// A line of the log has its function and its invocation, also from a thread of the app.
func TestRunContextLogging(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		log, stop := runApp(t, copyApp(t, "context-logging"), environment, "AzureWebJobsStorage="+q.connection)
		log.WaitFor(t, `"msg":"running"`)
		q.put(t, "says", "m")
		first := wantLine(t, log, "INFO", "says", "info of m")
		for level, text := range map[string]string{"WARN": "warning of m", "INFO": "printed m", "ERROR": "error of m from a thread"} {
			if line := wantLine(t, log, level, "says", text); line.Invocation != first.Invocation || line.Invocation == "" {
				t.Errorf("%q has the invocation %q; want %q", text, line.Invocation, first.Invocation)
			}
		}
		q.put(t, "says", "bad")
		log.WaitFor(t, "ValueError: bad it is")
		q.put(t, "overlap", "a", "b")
		known := make(map[string]string)
		for _, who := range []string{"a", "b"} {
			for step := range 3 {
				line := wantLine(t, log, "INFO", "overlap", fmt.Sprintf("%s step %d", who, step))
				if was := known[who]; was != "" && was != line.Invocation {
					t.Errorf("%s has two invocations: %s and %s", who, was, line.Invocation)
				}
				known[who] = line.Invocation
			}
		}
		if known["a"] == known["b"] {
			t.Errorf("both messages have the invocation %s", known["a"])
		}
		if strings.Contains(log.String(), "debug of m") {
			t.Error("the log has lines of level debug")
		}
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// Queues and Service Bus obey @app.retry, too, and a daemon that is killed between two retries
// continues the count.
func TestRunRetry(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		q := queues{connection: appStorage(t, environment)}
		_, bus := appNamespace(t, map[string]emulator.QueueOptions{"slowly": {}})
		dir := copyApp(t, "retry")
		settings := []string{"AzureWebJobsStorage=" + q.connection, "BusConnection=" + bus}
		log, stop := runApp(t, dir, environment, settings...)
		q.want(t, log, "timer-done", "retry 1")
		q.put(t, "flaky", "x")
		if status, out, errs := commandFor(t, environment, []string{"send", "slowly", "-c", dir, "--body", "x"}, settings...); status != ExitOK {
			t.Fatalf("send: status %d: %s%s", status, out, errs)
		}
		q.want(t, log, "flaky-done", "done after 2 of 3")
		q.want(t, log, "slowly-done", "done at last")
		wantSpaced(t, logLines(t, log, "flaky: retry "), 700*time.Millisecond, 700*time.Millisecond)
		wantSpaced(t, logLines(t, log, "slowly: retry "), 800*time.Millisecond, 1600*time.Millisecond, 3200*time.Millisecond)
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}

		cmd, killed, ended := runAppChild(t, dir, environment, settings...)
		killed.WaitFor(t, `"msg":"running"`)
		q.put(t, "flaky", "y")
		killed.WaitFor(t, "flaky: retry 0 of 3")
		killed.WaitFor(t, "ConnectionError: not yet (0)")
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-ended
		log, stop = runApp(t, dir, environment, settings...)
		q.want(t, log, "flaky-done", "done after 2 of 3")
		if lines := logLines(t, log, "flaky: retry 0"); len(lines) > 0 && strings.Contains(killed.String(), "message failed") {
			t.Errorf("the count began again: %+v", lines)
		}
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

func TestRunTimers(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		dir := copyApp(t, "timers")
		log, stop := runApp(t, dir, environment, "AzureWebJobsStorage="+q.connection)
		q.want(t, log, "startup", "started", "generic")
		wantTicks(t, log, q.take(t, log, "ticks", 3), 2)
		until(t, log, "slow runs twice", func() bool { return len(logLines(t, log, "slow ends")) >= 2 })
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
		open := 0
		for _, line := range logLines(t, log, "slow ") {
			switch line.Msg {
			case "slow begins":
				open++
			case "slow ends":
				open--
			}
			if open > 1 {
				t.Errorf("slow runs twice at once:\n%s", log)
			}
		}
		q.wantEmpty(t, log, "startup")
	})
}

// wantTicks checks that each tick is due at its own time, a multiple of some seconds. A busy
// machine runs it later.
func wantTicks(t *testing.T, log *printed, ticks []string, every int) {
	t.Helper()
	for _, text := range ticks {
		var tick struct {
			PastDue *bool `json:"past_due"`
		}
		if err := json.Unmarshal([]byte(text), &tick); err != nil || tick.PastDue == nil || *tick.PastDue {
			t.Errorf("a tick is %s (%v)", text, err)
		}
	}
	due := make(map[string]bool)
	for _, line := range logLines(t, log, "tick at ") {
		at, err := time.Parse(time.RFC3339, line.Message)
		if err != nil || at.Second()%every != 0 || due[line.Message] {
			t.Errorf("a tick is due at %s (%v), after %v", line.Message, err, due)
		}
		due[line.Message] = true
	}
	if len(due) < len(ticks) {
		t.Errorf("%d ticks are logged, and %d ran", len(due), len(ticks))
	}
}

// Of several instances only the parent imports the code to index it, and one runs each tick.
func TestRunInstancesOfAFunctionApp(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		dir := copyApp(t, "timers")
		write := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("drover.yaml", "scale: {instances: {min: 3, max: 3}}\napps: {app: {processes: 1}}\n")
		settings := []string{"AzureWebJobsStorage=" + q.connection}
		cmd, log, ended := runAppChild(t, dir, environment, settings...)
		q.want(t, log, "startup", "started", "generic")
		wantTicks(t, log, q.take(t, log, "ticks", 4), 2)
		q.wantEmpty(t, log, "startup")

		// A reload indexes the code again, and all instances get what it finds.
		code, err := os.ReadFile(filepath.Join(dir, "function_app.py"))
		if err != nil {
			t.Fatal(err)
		}
		write("function_app.py", string(code)+"\n\n@app.queue_trigger(arg_name=\"msg\", queue_name=\"more\", connection=\"AzureWebJobsStorage\")\ndef more(msg: str):\n    print(\"more of\", msg)\n")
		if status, out, errs := commandFor(t, environment, []string{"reload", "-c", dir}, settings...); status != ExitOK {
			t.Fatalf("reload: status %d: %s%s", status, out, errs)
		}
		q.put(t, "more", "x")
		log.WaitFor(t, "more of x")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if status := waitFor(t, ended, log); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}
