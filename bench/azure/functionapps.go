package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"

	"github.com/drover-run/drover/bench/rig"

	"github.com/drover-run/drover/bench/pools"
)

type FunctionAppsCommand struct {
	Rounds     int           `default:"5" help:"Rounds, in each of which all setups take turns; the medians are reported."`
	Messages   int           `default:"200000" help:"Calls for each of drover's setups and round."`
	For        time.Duration `default:"5s" help:"How long each of Azure's is measured, for each function and round."`
	InFlight   int           `default:"64" help:"Calls in flight in Azure's."`
	Functions  int           `default:"30" help:"Functions of the app whose start is measured."`
	Python     string        `default:"handlers/python/testdata/functionapps/oracle/bin/python" help:"Python 3.13 with azure-functions-runtime (make functionapps)." placeholder:"PATH"`
	GRPCPython string        `name:"grpc-python" default:"handlers/python/testdata/functionapps/grpc/bin/python" help:"Python 3.8 with azure-functions-worker 1.1.9; left out if it is missing." placeholder:"PATH"`
	Only       string        `enum:"all,calls,start" default:"all" help:"all, or one part: calls, start."`
}

// The no-op functions, for drover without the library, for model v2, and for model v1.
const (
	plainApp = "def noop(message): pass\nasync def async_noop(message): pass\n"
	v2App    = `import azure.functions as func

app = func.FunctionApp()

@app.queue_trigger(arg_name="msg", queue_name="noop", connection="AzureWebJobsStorage")
def noop(msg: func.QueueMessage) -> None:
    pass

@app.queue_trigger(arg_name="msg", queue_name="async-noop", connection="AzureWebJobsStorage")
async def async_noop(msg: func.QueueMessage) -> None:
    pass
`
	v1App = "import azure.functions as func\n%sdef main(msg: func.QueueMessage) -> None:\n    pass\n"
)

// Run compares functions of function apps with plain ones in drover, and with Azure's own workers.
func (c *FunctionAppsCommand) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.Messages < 1 || c.For < time.Second || c.InFlight < 1 || c.Functions < 1 {
		return errors.New("--for must be at least 1s, and all numbers at least 1")
	}
	var err error
	if c.Python, err = filepath.Abs(c.Python); err != nil {
		return err
	}
	if _, err := os.Stat(c.Python); err != nil {
		return fmt.Errorf("%w; run: make functionapps", err)
	}
	return rig.RunParts(ctx, c.Only, rig.Part{Name: "calls", Run: c.calls}, rig.Part{Name: "start", Run: c.start})
}

// queueOrigin has the fields of a message of a storage queue.
type queueOrigin map[string]any

func (queueOrigin) Properties() triggers.Properties { return nil }

func (o queueOrigin) Native() map[string]any { return o }

// queueMessage is the message of each call.
func queueMessage() *triggers.Message {
	at := time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC)
	return &triggers.Message{ID: "5c8d1dc7-ed9a-4f4e-8e4e-0a1b2c3d4e5f", Body: []byte(strings.Repeat("x", 128)), Attempt: 1, Enqueued: at, Origin: queueOrigin{
		"Id": "5c8d1dc7-ed9a-4f4e-8e4e-0a1b2c3d4e5f", "DequeueCount": int64(1), "PopReceipt": "AgAAAAMAAAAAAAAA",
		"InsertionTime": at, "ExpirationTime": at.AddDate(0, 0, 7), "NextVisibleTime": at.Add(5 * time.Minute),
	}}
}

// calls measures no-op functions in one process each.
func (c *FunctionAppsCommand) calls(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for name, text := range map[string]string{
		"plain/function_app.py": plainApp, "v2/function_app.py": v2App, "v1/noop/__init__.py": fmt.Sprintf(v1App, ""), "v1/async_noop/__init__.py": fmt.Sprintf(v1App, "async "),
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	rates := make(map[string][]float64)
	names := []string{"noop", "async_noop"}
	for range c.Rounds {
		for _, name := range names {
			for _, app := range []string{"plain", "v2"} {
				rate, err := c.inDrover(ctx, filepath.Join(dir, app), name, app == "v2")
				if err != nil {
					return fmt.Errorf("%s of %s: %w", name, app, err)
				}
				rates[app+" "+name] = append(rates[app+" "+name], rate)
			}
		}
		if err := c.byScript(ctx, rates, "runtime", c.Python, "runtime.py", "handlers/python/testdata", filepath.Join(dir, "v2")); err != nil {
			return err
		}
		if grpc, err := filepath.Abs(c.GRPCPython); err == nil {
			if _, err := os.Stat(grpc); err != nil {
				continue
			}
			if err := c.byScript(ctx, rates, "grpc", grpc, "grpc_host.py", filepath.Join(dir, "v1")); err != nil {
				return err
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "no-op of a queue, calls/s in one process\tsync\tasync\t")
	for _, row := range []struct{ key, what string }{
		{"plain", "drover, a plain function"}, {"v2", "drover, a function app of model v2"}, {"runtime", "azure-functions-runtime 1.3.0, native, without a host"}, {"grpc", "azure-functions-worker 1.1.9, over gRPC"},
	} {
		if len(rates[row.key+" noop"]) > 0 {
			fmt.Fprintf(w, "%s\t%.0f\t%.0f\t\n", row.what, rig.Median(rates[row.key+" noop"]), rig.Median(rates[row.key+" async_noop"]))
		}
	}
	for _, row := range []struct{ of, what, reach string }{
		{"plain", "function app ÷ plain function", "0.8, 0.8"}, {"runtime", "function app ÷ Azure's runtime", "5, 3"}, {"grpc", "function app ÷ Azure's worker over gRPC", "30, 30"},
	} {
		if len(rates[row.of+" noop"]) > 0 {
			ratio := func(name string) float64 { return rig.Median(rates["v2 "+name]) / rig.Median(rates[row.of+" "+name]) }
			fmt.Fprintf(w, "%s (to reach: %s)\t%.2f\t%.2f\t\n", row.what, row.reach, ratio("noop"), ratio("async_noop"))
		}
	}
	if len(rates["grpc noop"]) == 0 {
		fmt.Println("azure-functions-worker is left out; for it: python3.8 -m venv handlers/python/testdata/functionapps/grpc && handlers/python/testdata/functionapps/grpc/bin/pip install azure-functions-worker==1.1.9 azure-functions==1.24.0")
	}
	return w.Flush()
}

// inDrover returns the calls per second of a function in a pool of one worker.
func (c *FunctionAppsCommand) inDrover(ctx context.Context, dir, function string, isApp bool) (rate float64, err error) {
	f := workers.Function{Name: function, Module: "function_app", Function: function}
	if isApp {
		f.Origin = true
		f.Azure, err = json.Marshal(map[string]any{
			"name": function, "entry": function, "file": "function_app.py", "http_type": "function", "directory": dir, "max_attempts": 5,
			"bindings": []any{map[string]any{"type": "queueTrigger", "direction": "IN", "name": "msg", "queueName": "q", "connection": "AzureWebJobsStorage"}},
		})
		if err != nil {
			return 0, err
		}
	}
	home, err := python.InstallWorker(filepath.Join(filepath.Dir(dir), "data"))
	if err != nil {
		return 0, err
	}
	p := workers.New(workers.Config{
		App: dir, Command: python.WorkerCommand(interpreters.Interpreter{Path: c.Python}, home, dir, os.Environ()),
		Functions: []workers.Function{f}, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := p.WaitReady(ctx); err != nil {
		return 0, err
	}
	if err := (&pools.Calls{Message: queueMessage()}).Run(ctx, p, function, c.Messages/10); err != nil {
		return 0, err
	}
	l := &pools.Calls{Message: queueMessage()}
	began := time.Now()
	if err := l.Run(ctx, p, function, c.Messages); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if n := l.Failed.Load(); n > 0 {
		return 0, fmt.Errorf("%d calls failed, the last with: %v", n, l.LastErr.Load())
	}
	return float64(c.Messages) / took.Seconds(), nil
}

// byScript adds the rates that a script of Azure's measures. The last of the arguments is the app.
func (c *FunctionAppsCommand) byScript(ctx context.Context, rates map[string][]float64, key, interpreter, script string, arguments ...string) error {
	arguments = append([]string{filepath.Join("bench", "azure", "functionapps", script)}, arguments...)
	arguments = append(arguments, fmt.Sprint(c.For.Seconds()), fmt.Sprint(c.InFlight), "noop", "async_noop")
	cmd := exec.CommandContext(ctx, interpreter, arguments...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, errs.String())
	}
	var measured map[string]float64
	if err := json.Unmarshal(out, &measured); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	for name, rate := range measured {
		rates[key+" "+name] = append(rates[key+" "+name], rate)
	}
	return nil
}

// started notes when a function of the app whose start is measured ran.
const started = `
import os, time
import azure.functions as func

app = func.FunctionApp()

def note():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "noted"), "w") as file:
        file.write(repr(time.time()))
`

// start measures the time from the start of drover run to the first message of an app, and subtracts
// what Python takes to import the app. The message waits in the queue.
func (c *FunctionAppsCommand) start(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, app := filepath.Join(dir, "drover"), filepath.Join(dir, "app")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/drover-run/drover").CombinedOutput(); err != nil {
		return fmt.Errorf("building drover: %w\n%s", err, out)
	}
	if err := os.Mkdir(app, 0o700); err != nil {
		return err
	}
	source := started
	for i := range c.Functions {
		source += fmt.Sprintf("\n@app.queue_trigger(arg_name=\"msg\", queue_name=\"queue-%d\", connection=\"AzureWebJobsStorage\")\ndef function_%d(msg: func.QueueMessage) -> None:\n    note()\n", i, i)
	}
	for name, text := range map[string]string{"host.json": `{"version": "2.0"}`, "function_app.py": source} {
		if err := os.WriteFile(filepath.Join(app, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	e := emulator.New(emulator.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = e.Serve(listener) }()
	defer func() { err = errors.Join(err, e.Close()) }()
	connection := emulator.ConnectionString(listener.Addr().String())
	for i := range c.Functions {
		if err := e.CreateQueue(fmt.Sprintf("queue-%d", i)); err != nil {
			return err
		}
	}
	var whole, imports, beyond []float64
	for range c.Rounds {
		took, err := c.firstMessage(ctx, binary, app, connection)
		if err != nil {
			return err
		}
		began := time.Now()
		cmd := exec.CommandContext(ctx, c.Python, "-c", "import function_app")
		cmd.Dir = app
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("importing the app: %w\n%s", err, out)
		}
		own := time.Since(began).Seconds()
		whole, imports, beyond = append(whole, took), append(imports, own), append(beyond, took-own)
	}
	fmt.Printf("an app of %d functions: first message after %.2f s, of which Python takes %.2f s to start and import it; beyond that %.2f s (to reach: 1); each round:%.2f\n",
		c.Functions, rig.Median(whole), rig.Median(imports), rig.Median(beyond), beyond)
	return nil
}

// firstMessage runs the app until a message that waits has been handled, and returns when that was, in
// seconds after the start.
func (c *FunctionAppsCommand) firstMessage(ctx context.Context, binary, app, connection string) (took float64, err error) {
	queue, err := azqueue.NewQueueClientFromConnectionString(connection, "queue-0", nil)
	if err != nil {
		return 0, err
	}
	if _, err := queue.EnqueueMessage(ctx, base64.StdEncoding.EncodeToString([]byte("x")), nil); err != nil {
		return 0, err
	}
	noted := filepath.Join(app, "noted")
	if err := errors.Join(os.RemoveAll(noted), os.RemoveAll(filepath.Join(app, ".drover"))); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, binary, "run", app)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "VIRTUAL_ENV=") })
	cmd.Env = append(cmd.Env, "VIRTUAL_ENV="+filepath.Dir(filepath.Dir(c.Python)), "AzureWebJobsStorage="+connection)
	var log strings.Builder
	cmd.Stderr = &log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	giveUp := time.Now().Add(rig.StuckAfter)
	var at float64
	for at == 0 && ctx.Err() == nil && time.Now().Before(giveUp) {
		if text, err := os.ReadFile(noted); err == nil {
			_, _ = fmt.Sscan(string(text), &at)
		}
		time.Sleep(5 * time.Millisecond)
	}
	err = errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait())
	if at == 0 {
		return 0, fmt.Errorf("no message was handled: %w\n%s", err, log.String())
	}
	return at - float64(began.UnixNano())/1e9, err
}
