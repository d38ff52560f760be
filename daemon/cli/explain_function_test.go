package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// explains runs the command until its output has all of the texts.
func explains(t *testing.T, out *printed, file, about string, wants ...string) {
	t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		status, text, errs := command(t.Context(), nil, nil, "explain", about, "-c", file)
		if status != ExitOK {
			t.Fatalf("status %d\n%s%s", status, text, errs)
		}
		missing := ""
		for _, want := range wants {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it lacks %q:\n%s\nthe log is\n%s", missing, text, out)
		}
	}
}

func TestExplainAnAppThatIsDown(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, fmt.Sprintf(`
log: {format: text}
functions:
  orders:
    trigger: {nats: {}}
    handler: {http: {url: "http://%s/orders"}}
`, freePort(t)), "")
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	r.send("orders", "x")
	explains(t, out, r.file, "orders", "Function orders cannot receive. Its app is down: ", "connection refused; nothing is received until it is up", "1 message waits at its source")
	explains(t, out, r.file, "orders:1", "Message orders:1 of function orders waits at its source", "drover explain orders shows the limit of the function")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A worker dies, and the next one takes a while to start.
func TestExplainWithoutAWorker(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, pythonConfig, `
import os, time
DIES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dies")
while os.path.exists(DIES):
    time.sleep(0.01)
def greet(message):
    if message.text() == "die" and message.attempt == 1:
        open(DIES, "w").close()
        os._exit(3)
    print("hello", message.text(), flush=True)
`)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "\"msg\":\"running\"")
	r.send("greet", "die")
	explains(t, out, r.file, "greet", "Function greet waits for a worker. No worker is ready; starting: 1, restarted after a crash: 1\n")
	r.send("greet", "world")
	explains(t, out, r.file, "greet:2", "Message greet:2 of function greet waits at its source")
	if err := os.Remove(filepath.Join(r.dir, "app", "dies")); err != nil {
		t.Fatal(err)
	}
	out.WaitFor(t, "hello world")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// Functions of one app share its slots. The explanation of a function without slots names the
// functions that use them.
func TestExplainSharedSlots(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, `
log: {format: text}
apps: {both: {path: ./app, processes: 1, threads: 2, coroutines: 1}} # nothing to tune
functions:
  one: {trigger: {nats: {}}, handler: {python: {app: both}}}
  two: {trigger: {nats: {}}, handler: {python: {app: both}}}
`, `
import os, time
GO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "go")
def one(body):
    while not os.path.exists(GO):
        time.sleep(0.01)
two = one
`)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	for range 2 {
		r.send("one", "x")
	}
	explains(t, out, r.file, "two", "Function two is at its limit. The slots of app both are in use, 2 of 2 (2 by one): the workers are the limit", "0 messages wait at its source")
	r.send("two", "x")
	explains(t, out, r.file, "two", "1 message waits at its source")
	if err := os.WriteFile(filepath.Join(r.dir, "app", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	explains(t, out, r.file, "two", "Function two is receiving. No limit applies: it waits for messages, with 2 free slots")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A function whose code does not load is stopped, and the other function continues.
func TestExplainAFunctionThatHasStopped(t *testing.T) {
	t.Parallel()
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	cfg.Functions = make(map[string]configs.Function)
	queues := make(map[string]*memory.Queue)
	options := []daemon.Option{daemon.WithFuncs(handlers.Funcs{
		"bad": func(context.Context, *triggers.Message) ([]byte, error) {
			return nil, &handlers.LoadError{Function: "bad", Summary: "no module"}
		},
		"good": func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil },
	})}
	for _, name := range []string{"bad", "good"} {
		queues[name] = memory.New(time.Hour)
		defer queues[name].Close()
		cfg.Functions[name] = configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: name}}
		options = append(options, daemon.WithTrigger(name, queues[name].Trigger()))
	}
	running, stop := context.WithCancel(t.Context())
	defer stop()
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := daemon.New(cfg, append(options, daemon.WithReady(func() { close(ready) }))...)
	go func() { ended <- d.Run(running) }()
	<-ready
	queues["bad"].Send(triggers.Message{ID: "m"})
	// The function is stopped shortly before its message is back at the source.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var why daemon.Explanation
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if why = explained(t, cfg, "bad", "", "stopped"); strings.Contains(statustext.ExplanationText(why, false), "1 message waits") {
			break
		}
	}
	says(t, why, "Function bad is stopped. It is disabled, because its code does not load: ", "no module", "1 message waits at its source")
	says(t, explained(t, cfg, "good", "", "receiving"), "No limit applies")
	stop()
	var loadError *handlers.LoadError
	if err := <-ended; err != nil && !errors.As(err, &loadError) {
		t.Error(err)
	}
}
