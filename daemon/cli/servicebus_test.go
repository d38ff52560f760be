package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/emulate"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// namespace runs an emulated Service Bus, and returns its connection string.
func namespace(t *testing.T) (*emulator.Emulator, string) {
	t.Helper()
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, e, l)
	for _, err := range []error{
		e.CreateQueue("orders", emulator.QueueOptions{}), e.CreateTopic("events"), e.CreateSubscription("events", "billing", emulator.QueueOptions{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return e, e.ConnectionString(l.Addr().String())
}

const busConfig = `
connections:
  bus: {connection_string: "file:secret"}
functions:
  orders:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app, function: greet}}
    retry: {max_attempts: 2, initial: 10ms}
  billing:
    trigger: {servicebus: {topic: events}}
    handler: {python: {path: ./app, function: greet}}
`

func TestServiceBus(t *testing.T) {
	t.Parallel()
	e, connection := namespace(t)
	dir := write(t, map[string]string{"drover.yaml": busConfig, "secret": connection, "app/function_app.py": `
import drover
def greet(message):
    if message.body == b"fail": raise ValueError("no luck")
    print("hello", message.body.decode(), message.attributes.get("kind"), message.attempt)
`})
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, strings.NewReader(""), "check", file)
	if status != 0 || !strings.Contains(out, "subscription billing of topic events of Service Bus on bus") || strings.Contains(out, "SharedAccessKey") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	log, stop := startCommand(t, "run", file)
	for _, args := range [][]string{
		{"orders", "--body", "ann", "-H", "kind=new"}, {"orders", "--body", "fail"}, {"billing", "--count", "3"}, {"events", "--body", "bob", "--via", "bus"},
	} {
		status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file}, args...)...)
		if status != 0 {
			t.Fatalf("send %v: status %d: %s%s", args, status, out, errs)
		}
	}
	for _, want := range []string{"hello ann new 1", "hello 3 None 1", "hello bob None 1", "message dead-lettered"} {
		log.WaitFor(t, want)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if got, err := e.Counts("orders"); err != nil || got != (emulator.Counts{DeadLettered: 1}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := e.Counts("events/Subscriptions/billing"); err != nil || got != (emulator.Counts{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// Sessions with their state, several subscriptions, and the results of functions.
func TestServiceBusSessionsAndOutputs(t *testing.T) {
	t.Parallel()
	e, connection := namespace(t)
	for _, err := range []error{
		e.CreateQueue("carts", emulator.QueueOptions{RequiresSession: true}), e.CreateQueue("totals", emulator.QueueOptions{RequiresSession: true}),
		e.CreateSubscription("events", "audit", emulator.QueueOptions{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
connections:
  bus: {connection_string: "file:secret"}
  local: {nats: embedded}
functions:
  carts:
    trigger: {servicebus: {sessions: true, session_state: true}}
    handler: {python: {path: ./app}}
    output: {servicebus: {queue: totals}}
  totals:
    trigger: {servicebus: {sessions: true}}
    handler: {python: {path: ./app}}
  both:
    trigger: {servicebus: {topic: events, subscription: [billing, audit]}}
    handler: {python: {path: ./app}}
    output: {nats: {subject: seen}}
  seen:
    trigger: {nats: {connection: local}}
    handler: {python: {path: ./app}}
  made:
    trigger: {servicebus: {topic: new, create: true}}
    handler: {python: {path: ./app, function: totals}}
`, "app/function_app.py": `
def carts(message, context):
    n = int(context.session_state or b"0") + int(message.body)
    context.session_state = str(n).encode()
    return n
def totals(message): print("total", message.ordering_key, message.text())
def both(body): return b"both " + body
def seen(body): print("seen", body.decode())
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, "running")
	for _, args := range [][]string{
		{"carts", "--session", "ann", "--count", "4"}, {"carts", "--session", "bob", "--body", "7"}, {"both", "--body", "x"}, {"made", "--body", "y"},
	} {
		status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file}, args...)...)
		if status != 0 {
			t.Fatalf("send %v: status %d: %s%s", args, status, out, errs)
		}
	}
	for _, want := range []string{"total ann 10", "total bob 7", "seen both x", "total  y"} {
		log.WaitFor(t, want)
	}
	for _, path := range []string{"carts", "totals", "events/Subscriptions/billing", "events/Subscriptions/audit", "new/Subscriptions/made"} {
		awaitCounts(t, e, path, emulator.Counts{})
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if n := strings.Count(log.String(), "seen both x"); n != 2 {
		t.Errorf("%d results of two subscriptions", n)
	}
}

// awaitCounts waits until a queue or a subscription has as many messages as wanted.
func awaitCounts(t *testing.T, e *emulator.Emulator, path string, want emulator.Counts) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		got, err := e.Counts(path)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v, %v; want %+v", path, got, err, want)
		}
	}
}

func TestServiceBusThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, connection := namespace(t)
	dir := write(t, map[string]string{"secret": connection,
		"drover.yaml":         "connections:\n  bus: {connection_string: \"file:secret\"}\nfunctions:\n  nowhere: {trigger: {servicebus: {}}, handler: {python: {path: ./app}}}\n",
		"app/function_app.py": "def nowhere(body): pass\n"})
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, strings.NewReader(""), "run", file)
	if status != ExitStart || !strings.Contains(errs, "function nowhere") || !strings.Contains(errs, "check the name") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	status, out, errs = command(t.Context(), nil, strings.NewReader(""), "send", "-c", file, "nowhere", "--body", "x")
	if status != ExitFailed || !strings.Contains(errs, "check the name") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=s3cret;UseDevelopmentEmulator=true"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, errs = command(t.Context(), nil, strings.NewReader(""), "check", file)
	if strings.Contains(out+errs, "s3cret") {
		t.Errorf("the key is printed: %s%s", out, errs)
	}
}

// A message that hangs its worker each time runs again without using an attempt, but only a
// limited number of times. Its lock is renewed meanwhile.
func TestAWorkerThatHangs(t *testing.T) {
	t.Parallel()
	e, connection := namespace(t)
	if err := e.CreateQueue("hangs", emulator.QueueOptions{LockDuration: 5 * time.Second}); err != nil { // renewed after half of it, also on a busy machine
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
connections:
  bus: {connection_string: "file:secret"}
functions:
  hangs:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app, processes: 1}}
    timeout: 500ms
    retry: {initial: 10ms}
`, "app/function_app.py": `
import os, signal, time
def hangs(message):
    if message.attempt == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60) # another thread may take the signal, a moment later
    print("attempt", message.attempt)
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	if status, out, errs := command(t.Context(), nil, strings.NewReader(""), "send", "-c", file, "hangs", "--body", "x"); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	log.WaitFor(t, "attempt 2")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if u, err := e.Usage("hangs"); err != nil || u.Lost > 0 || u.Leased != 2 {
		t.Errorf("%+v, %v", u, err)
	}
	if !strings.Contains(log.String(), "it was stopped (SIGSTOP)") {
		t.Errorf("the log does not say why the worker was killed: %s", log)
	}
}

// With cancel_on_lock_lost, a function's context ends when the lock of its message is lost.
func TestAFunctionWhoseMessageIsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ cancels, sessions bool }{{true, true}, {false, true}, {true, false}, {false, false}} {
		cancels, sessions := test.cancels, test.sessions
		e, connection := namespace(t)
		if err := e.CreateQueue("slow", emulator.QueueOptions{LockDuration: time.Second, RequiresSession: sessions}); err != nil {
			t.Fatal(err)
		}
		cfg, err := configs.Parse("test.yaml", fmt.Appendf(nil, `
connections:
  bus: {connection_string: %q}
functions:
  slow:
    trigger: {servicebus: {sessions: %v, max_lock_renewal: 1ms, cancel_on_lock_lost: %v}}
    handler: {go: slow}
`, connection, sessions, cancels), t.TempDir(), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		var first atomic.Bool
		var causes []error
		slow := func(ctx context.Context, m *triggers.Message) ([]byte, error) {
			if !first.CompareAndSwap(false, true) {
				cancel()
				return nil, nil
			}
			wait := time.NewTimer(2500 * time.Millisecond)
			defer wait.Stop()
			select {
			case <-ctx.Done():
			case <-wait.C:
			}
			causes = append(causes, context.Cause(ctx))
			return nil, ctx.Err()
		}
		d := daemon.New(cfg, daemon.WithFuncs(handlers.Funcs{"slow": slow}))
		s, err := servicebus.NewSender(&servicebus.Access{ConnectionString: func() (string, error) { return connection, nil }}, "slow")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Send(ctx, &triggers.Message{OrderingKey: "a", Body: []byte("x")}), s.Flush(ctx), s.Close(ctx)); err != nil {
			t.Fatal(err)
		}
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		if len(causes) != 1 || cancels != strings.Contains(fmt.Sprint(causes[0]), "the message was lost") {
			t.Errorf("cancel_on_lock_lost: %v: the context ended with %v", cancels, causes)
		}
		counts := d.Status()[0]
		if n := counts.Lost; n != 1 {
			t.Errorf("%d losses were counted", n)
		}
		if n := counts.Retried + counts.Failed; n != 0 {
			t.Errorf("a loss was charged: %d", n)
		}
	}
}

// A result that cannot be sent yet holds its message. If it can never be sent, the message is
// rejected.
func TestOutputsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	e, connection := namespace(t)
	if err := e.CreateQueue("large", emulator.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
connections:
  bus: {connection_string: "file:secret"}
functions:
  orders:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app}}
    output: {servicebus: {queue: results}}
  large:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app}}
    output: {servicebus: {topic: events}}
`, "app/function_app.py": `
def orders(body): return body
def large(body): return bytes(int(body))
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	for _, args := range [][]string{{"orders", "--count", "5"}, {"large", "--body", "10"}, {"large", "--body", "300000"}, {"large", "--body", "0"}} {
		if status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file}, args...)...); status != 0 {
			t.Fatalf("status %d: %s%s", status, out, errs)
		}
	}
	log.WaitFor(t, "cannot send a result; will retry until it works")
	if err := e.CreateQueue("results", emulator.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]emulator.Counts{"orders": {}, "results": {Active: 5}, "large": {DeadLettered: 1}, "events/Subscriptions/billing": {Active: 1}} {
		awaitCounts(t, e, path, want)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if !strings.Contains(log.String(), "the message is too large for the namespace") {
		t.Errorf("%s", log)
	}
}

// The example for new users runs unchanged.
func TestTheServiceBusExample(t *testing.T) {
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, e, l)
	c := emulate.Bus{Subscription: []string{"orders/billing"}, SessionQueue: []string{"carts"}, Queue: []string{"receipts"}, Lock: time.Minute, MaxDeliveries: 10}
	if err := c.CreateEntities(e); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range []string{"servicebus.yaml", "app/function_app.py"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "configs", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	t.Setenv("BUS", e.ConnectionString(l.Addr().String()))
	file := filepath.Join(write(t, files), "servicebus.yaml")
	log, stop := startCommand(t, "run", file)
	for _, args := range [][]string{{"billing", "--count", "10"}, {"carts", "--session", "ann", "--count", "3"}} {
		if status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file}, args...)...); status != 0 {
			t.Fatalf("status %d: %s%s", status, out, errs)
		}
	}
	log.WaitFor(t, "billing 10")
	log.WaitFor(t, "the cart of ann has ['1', '2', '3']")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if got, err := e.Counts("receipts"); err != nil || got.Active != 10 {
		t.Errorf("%+v, %v", got, err)
	}
}
