package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

func TestRunOrdersBus(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		e, bus := appNamespace(t, map[string]emulator.QueueOptions{"readings": {}, "dead": {}, "steps": {RequiresSession: true}}, "handled/mail")
		dir := copyApp(t, "orders-bus")
		settings := []string{"AzureWebJobsStorage=" + q.connection, "BusConnection=" + bus}
		send := func(args ...string) {
			t.Helper()
			if status, out, errs := commandFor(t, environment, append([]string{"send", "-c", dir}, args...), settings...); status != ExitOK {
				t.Fatalf("send: status %d: %s%s", status, out, errs)
			}
		}
		var readings []*triggers.Message
		for n := range 25 {
			readings = append(readings, &triggers.Message{ID: fmt.Sprint("r", n), Body: fmt.Append(nil, n), Attributes: map[string]string{"sensor": fmt.Sprint("s", n)}})
		}
		sendToBus(t, bus, "readings", readings...)
		log, stop := runApp(t, dir, environment, settings...)
		log.WaitFor(t, `"msg":"running"`)
		wantReadings(t, log, q)
		send("handle_order", "--body", "order 1", "-H", "k=v", "-P", "message_id=m1", "-P", "content_type=text/plain", "-P", "subject=s",
			"-P", "correlation_id=c", "-P", "reply_to=r", "-P", "to=t")
		var seen map[string]any
		if err := json.Unmarshal([]byte(q.take(t, log, "orders-seen", 1)[0]), &seen); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{
			"body": "order 1", "message_id": "m1", "content_type": "text/plain", "subject": "s", "label": "s", "correlation_id": "c", "reply_to": "r", "to": "t",
			"delivery_count": 1.0, "enqueued": true, "expires": true, "locked_until": true, "lock_token": true,
		} {
			if seen[name] != want {
				t.Errorf("%s is %v; want %v", name, seen[name], want)
			}
		}
		if text := fmt.Sprint(seen["application_properties"], seen["user_properties"]); text != "map[k:v] map[k:v]" {
			t.Errorf("the properties are %s", text)
		}
		if _, isNumber := seen["sequence_number"].(float64); !isNumber {
			t.Errorf("the sequence number is %v", seen["sequence_number"])
		}
		q.want(t, log, "mails", "send_mail: ORDER 1")

		var steps []*triggers.Message
		for n := range 20 {
			for _, session := range []string{"ann", "bob", "eve"} {
				steps = append(steps, &triggers.Message{OrderingKey: session, Body: fmt.Append(nil, n)})
			}
		}
		sendToBus(t, bus, "steps", steps...)
		next := make(map[string]int)
		for _, text := range q.take(t, log, "steps-seen", 60) {
			session, n, _ := strings.Cut(text, ":")
			if n != fmt.Sprint(next[session]) {
				t.Errorf("session %s has %s; want %d", session, n, next[session])
			}
			next[session]++
		}

		send("dead", "--body", "x")
		until(t, log, "the message is dead", func() bool {
			got, err := e.Counts("dead")
			return err == nil && got.DeadLettered == 1
		})
		// A failure under settings that drover tries is released, not logged, and the service counts it as
		// a delivery.
		var unseen []string
		for n := range 10 {
			if text := fmt.Sprintf("RuntimeError: delivery %d", n+1); !strings.Contains(log.String(), text) {
				unseen = append(unseen, text)
			}
		}
		if len(unseen) > 2 {
			t.Errorf("the log lacks %q", unseen)
		}
		if status, out, errs := commandFor(t, environment, []string{"dead", "list", "dead", "-c", dir}, settings...); status != ExitOK || !strings.Contains(out, "delivery 10") {
			t.Errorf("dead: status %d: %s%s", status, out, errs)
		}
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// wantReadings checks that each of 25 readings is in one batch of at most 10, and that some batch has
// more than one.
func wantReadings(t *testing.T, log *printed, q queues) {
	t.Helper()
	seen, most := make(map[float64]bool), 0
	for len(seen) < 25 {
		var batch struct {
			Values       []float64
			IDs, Sensors []string
		}
		text := q.take(t, log, "readings-seen", 1)[0]
		if err := json.Unmarshal([]byte(text), &batch); err != nil || len(batch.Values) == 0 || len(batch.Values) > 10 {
			t.Fatalf("a batch is %s (%v)", text, err)
		}
		most = max(most, len(batch.Values))
		for i, value := range batch.Values {
			if seen[value] || batch.IDs[i] != fmt.Sprint("r", value) || batch.Sensors[i] != fmt.Sprint("s", value) {
				t.Fatalf("reading %d of %s is wrong; earlier ones are %v", i, text, seen)
			}
			seen[value] = true
		}
	}
	if most < 2 {
		t.Error("no batch has more than one reading")
	}
}

// An app of model v1, with cardinality many and an entry point in another file.
func TestRunBusV1(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		_, bus := appNamespace(t, map[string]emulator.QueueOptions{"invoices": {}}, "ledger/book")
		dir := copyApp(t, "bus-v1")
		settings := []string{"AzureWebJobsStorage=" + q.connection, "BusConnection=" + bus}
		log, stop := runApp(t, dir, environment, settings...)
		log.WaitFor(t, `"msg":"running"`)
		sendToBus(t, bus, "invoices", &triggers.Message{Body: []byte("7")})
		q.want(t, log, "book", "paid 7")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
		var five []*triggers.Message
		for n := range 5 {
			five = append(five, &triggers.Message{Body: fmt.Append(nil, n)})
		}
		sendToBus(t, bus, "invoices", five...)
		log, stop = runApp(t, dir, environment, settings...)
		q.want(t, log, "book", "paid 0", "paid 1", "paid 2", "paid 3", "paid 4")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}
