package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

const namedConfig = `
connections:
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
  local: {nats: embedded}
functions:
  orders:
    trigger: {nats: {connection: local}}
    handler: {%s}
    retry: {max_attempts: 2, initial: 1ms, jitter: 0}
    output:
      - {name: receipts, servicebus: {queue: receipts}}
      - {name: audit, storage_queue: {queue: audit}}
      - {name: $$events, nats: {connection: local, subject: seen}}
      - {servicebus: {queue: done}}
  seen:
    trigger: {nats: {connection: local}}
    handler: {go: seen}
    concurrency: 1
`

// namedApps have the function orders in each language: its first attempt fails after it has sent,
// where the language allows that. The body is the order's ID.
var namedApps = map[string]struct {
	handler string
	files   map[string]string
}{
	"python": {"python: {path: ./app}", map[string]string{"app/function_app.py": `
import drover

def orders(message):
    if message.attempt == 1: raise ValueError("the first time")
    if message.text() == "lost": return drover.Outputs(recipts="x", audit="y")
    id = message.text()
    return drover.Outputs(
        {"$events": [f"{id} {n}" for n in range(5)]},
        receipts=drover.Output({"id": id}, session_id="customer-" + id, subject="receipt", attributes={"color": "red"}),
        audit=["opened " + id, None, "closed " + id],
        result="done " + id,
    )
`}},
	"node": {"node: {path: ./app}", map[string]string{"app/index.js": `
const { Output, Outputs } = require('drover');
exports.orders = async (message) => {
  if (message.attempt === 1) throw new Error('the first time');
  if (message.text() === 'lost') return new Outputs({ recipts: 'x', audit: 'y' });
  const id = message.text();
  return new Outputs({
    $events: [0, 1, 2, 3, 4].map((n) => id + ' ' + n),
    receipts: new Output({ id }, { sessionId: 'customer-' + id, subject: 'receipt', attributes: { color: 'red' } }),
    audit: ['opened ' + id, undefined, 'closed ' + id],
  }, 'done ' + id);
};
`}},
	"go": {"go: orders", nil},
}

// ordersInGo is the function orders in Go.
func ordersInGo(ctx context.Context, m *triggers.Message) ([]byte, error) {
	id := string(m.Body)
	if id == "lost" {
		return nil, handlers.Send(ctx, "recipts", []byte("x"), nil)
	}
	var errs []error
	send := func(output, body string, about triggers.Properties) {
		errs = append(errs, handlers.Send(ctx, output, []byte(body), about))
	}
	for n := range 5 {
		send("$events", fmt.Sprint(id, " ", n), nil)
	}
	send("receipts", fmt.Sprintf(`{"id":%q}`, id), triggers.Properties{
		triggers.SessionID: "customer-" + id, triggers.Subject: "receipt", triggers.ContentType: "application/json", triggers.AttributePrefix + "color": "red",
	})
	send("audit", "opened "+id, nil)
	send("audit", "closed "+id, nil)
	if m.Attempt == 1 {
		errs = append(errs, errors.New("the first time"))
	}
	return []byte("done " + id), errors.Join(errs...)
}

// Named outputs of all kinds get the messages that functions in each language send to them: once, in order,
// with its properties, and nothing of an attempt that failed.
func TestNamedOutputsOfAllKinds(t *testing.T) {
	t.Parallel()
	for language, app := range namedApps {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if language == "node" {
				needNode(t)
			}
			bus, connection := namespace(t)
			store, account := storage(t)
			if err := errors.Join(bus.CreateQueue("receipts", emulator.QueueOptions{RequiresSession: true}), bus.CreateQueue("done", emulator.QueueOptions{}), store.CreateQueue("audit")); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{"bus": connection, "store": account, "drover.yaml": fmt.Sprintf(namedConfig, app.handler)}
			maps.Copy(files, app.files)
			file := filepath.Join(write(t, files), "drover.yaml")
			var mu sync.Mutex
			var events []string
			funcs := handlers.Funcs{"orders": ordersInGo, "seen": func(_ context.Context, m *triggers.Message) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, string(m.Body))
				return nil, nil
			}}
			log, stop := startWithFuncs(t, funcs, "run", file)
			log.WaitFor(t, `"running"`)
			if status, _, errs := command(t.Context(), funcs, nil, "send", "orders", "-c", file, "--body", "7"); status != 0 {
				t.Fatal(errs)
			}
			waitLen(t, account, "audit", 2)
			until(t, log, "the result on the bus", func() bool {
				done, err := bus.Counts("done")
				mu.Lock()
				defer mu.Unlock()
				return err == nil && done.Active == 1 && len(events) == 5
			})
			if status, _, errs := command(t.Context(), funcs, nil, "send", "orders", "-c", file, "--body", "lost"); status != 0 {
				t.Fatal(errs)
			}
			log.WaitFor(t, "message dead-lettered")
			log.WaitFor(t, `receipts, audit, $events`)
			if status := stop(); status != ExitOK {
				t.Errorf("status %d: %s", status, log)
			}
			if want := []string{"7 0", "7 1", "7 2", "7 3", "7 4"}; !slices.Equal(events, want) {
				t.Errorf("the events are %q, want %q", events, want)
			}
			var audit []string
			for range 2 {
				got, err := queueClient(t, account, "audit").DequeueMessage(t.Context(), nil)
				if err != nil || len(got.Messages) != 1 {
					t.Fatalf("%v, %v", got, err)
				}
				text, err := base64.StdEncoding.DecodeString(*got.Messages[0].MessageText)
				if err != nil {
					t.Error(err)
				}
				audit = append(audit, string(text))
			}
			if want := []string{"opened 7", "closed 7"}; !slices.Equal(audit, want) {
				t.Errorf("the audit is %q, want %q", audit, want)
			}
			checkReceipt(t, connection)
		})
	}
}

// checkReceipt checks the message for the output receipts.
func checkReceipt(t *testing.T, connection string) {
	t.Helper()
	c, err := azservicebus.NewClientFromConnectionString(connection, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	r, err := c.AcceptSessionForQueue(t.Context(), "receipts", "customer-7", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.ReceiveMessages(t.Context(), 2, nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d receipts, %v", len(got), err)
	}
	m := got[0]
	if string(m.Body) != `{"id":"7"}` || m.Subject == nil || *m.Subject != "receipt" || m.ContentType == nil || *m.ContentType != "application/json" || m.ApplicationProperties["color"] != "red" {
		t.Errorf("the receipt is %s, %+v", m.Body, m)
	}
}

// drover invoke and drover check show named outputs, and connect to nothing.
func TestInvokeShowsNamedOutputs(t *testing.T) {
	t.Parallel()
	for language, app := range namedApps {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if language == "node" {
				needNode(t)
			}
			files := map[string]string{
				"bus": "Endpoint=sb://nowhere.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=czNjcjN0", "store": "UseDevelopmentStorage=true",
				"drover.yaml": strings.Replace(fmt.Sprintf(namedConfig, app.handler), "nats: embedded", `nats: "nats://127.0.0.1:9"`, 1),
			}
			maps.Copy(files, app.files)
			file := filepath.Join(write(t, files), "drover.yaml")
			funcs := handlers.Funcs{"orders": ordersInGo, "seen": ordersInGo}
			status, out, errs := command(t.Context(), funcs, nil, "invoke", "orders", "-c", file, "--body", "7", "--attempt", "2")
			if status != ExitOK || out != "done 7" {
				t.Errorf("status %d, %q\n%s", status, out, errs)
			}
			for _, want := range []string{
				`output to receipts (queue receipts of Service Bus on bus): 10 bytes, attribute:color=red, content_type=application/json, session_id=customer-7, subject=receipt: {"id":"7"}` + "\n",
				"output to audit (storage queue audit on store, as base64): 8 bytes: opened 7\n", "output to audit (storage queue audit on store, as base64): 8 bytes: closed 7\n",
				"output to $events (subject seen on local): 3 bytes: 7 4\n", "output: 6 bytes, which would go to queue done of Service Bus on bus\n",
			} {
				if !strings.Contains(errs, want) {
					t.Errorf("no %q in\n%s", want, errs)
				}
			}
			status, out, errs = command(t.Context(), funcs, nil, "invoke", "orders", "-c", file, "--body", "7", "--attempt", "2", "--json")
			var report invoke.Report
			if err := json.Unmarshal([]byte(out), &report); err != nil || status != ExitOK || len(report.Outputs) != 8 {
				t.Errorf("status %d, %v: %s%s", status, err, out, errs)
			}
			for _, o := range report.Outputs {
				if o.Name == "receipts" && (*o.Body != `{"id":"7"}` || o.Properties["session_id"] != "customer-7" || !strings.HasPrefix(o.To, "receipts (queue receipts")) {
					t.Errorf("the receipt is %+v", o)
				}
			}
			status, _, errs = command(t.Context(), funcs, nil, "invoke", "orders", "-c", file, "--body", "lost", "--attempt", "2")
			if status != ExitFailed || !strings.Contains(errs, "verdict: reject") || !strings.Contains(errs, "recipts") || !strings.Contains(errs, "receipts, audit, $events") || strings.Contains(errs, "output to") {
				t.Errorf("status %d\n%s", status, errs)
			}
			if status, out, errs := command(t.Context(), funcs, nil, "check", file); status != ExitOK || !strings.Contains(out, "receipts (queue receipts of Service Bus on bus)") {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
		})
	}
}
