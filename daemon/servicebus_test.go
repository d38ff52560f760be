package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// namespace is an emulated Service Bus, and its connection string.
func namespace(t *testing.T) (*emulator.Emulator, string) {
	t.Helper()
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
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
	for _, want := range []string{"hello ann new 1", "hello 3 None 1", "hello bob None 1", "moved to the dead letters"} {
		log.wait(t, want)
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

// Sessions with their state, several subscriptions, and what functions return.
func TestServiceBusSessionsAndOutputs(t *testing.T) {
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
	log.wait(t, "running")
	for _, args := range [][]string{
		{"carts", "--session", "ann", "--count", "4"}, {"carts", "--session", "bob", "--body", "7"}, {"both", "--body", "x"}, {"made", "--body", "y"},
	} {
		status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file}, args...)...)
		if status != 0 {
			t.Fatalf("send %v: status %d: %s%s", args, status, out, errs)
		}
	}
	for _, want := range []string{"total ann 10", "total bob 7", "seen both x", "total  y"} {
		log.wait(t, want)
	}
	for _, path := range []string{"carts", "totals", "events/Subscriptions/billing", "events/Subscriptions/audit", "new/Subscriptions/made"} {
		for deadline := time.Now().Add(30 * time.Second); ; {
			got, err := e.Counts(path)
			if err == nil && got == (emulator.Counts{}) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v, %v", path, got, err)
			}
		}
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if n := strings.Count(log.String(), "seen both x"); n != 2 {
		t.Errorf("%d results of two subscriptions", n)
	}
}

func TestServiceBusThatIsNotThere(t *testing.T) {
	_, connection := namespace(t)
	dir := write(t, map[string]string{"secret": connection,
		"drover.yaml":         "connections:\n  bus: {connection_string: \"file:secret\"}\nfunctions:\n  nowhere: {trigger: {servicebus: {}}, handler: {python: {path: ./app}}}\n",
		"app/function_app.py": "def nowhere(body): pass\n"})
	file := filepath.Join(dir, "drover.yaml")
	start := time.Now()
	status, out, errs := command(t.Context(), nil, strings.NewReader(""), "run", file)
	if status != ExitStart || !strings.Contains(errs, "function nowhere") || !strings.Contains(errs, "is the name right, and is it made?") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	status, out, errs = command(t.Context(), nil, strings.NewReader(""), "send", "-c", file, "nowhere", "--body", "x")
	if status != ExitFailed || !strings.Contains(errs, "is the name right, and is it made?") {
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
