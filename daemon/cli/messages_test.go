package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// allSources is a configuration with one function per source, all with the same Go code.
const allSources = `
connections:
  local: {nats: embedded}
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
functions:
  nats: {trigger: {nats: {connection: local}}, handler: {go: f}}
  pattern: {trigger: {nats: {connection: local, subject: "shop.*.new"}}, handler: {go: f}}
  bus: {trigger: {servicebus: {connection: bus, queue: orders}}, handler: {go: f}}
  store: {trigger: {storage_queue: {connection: store, queue: jobs, create: true}}, handler: {go: f}}
  web: {trigger: {http: {auth: anonymous}}, handler: {go: f}}
  clock: {trigger: {timer: {schedule: "0 0 0 1 1 *"}}, handler: {go: f}}
http: {listen: "127.0.0.1:0"}
`

// postMessage posts a message to a function of the daemon over a data directory.
func postMessage(t *testing.T, dir, function, query, body string) (int, string) {
	t.Helper()
	socket := admin.SocketPath(filepath.Join(dir, ".drover"))
	return daemontest.Send(t, socket, http.MethodPost, "/v1/functions/"+function+"/messages"+query, strings.NewReader(body), "Content-Type: text/plain")
}

// The admin API and drover send both send messages to each source, at once and scheduled.
func TestMessagesForAllSources(t *testing.T) {
	t.Parallel()
	_, bus := namespace(t)
	_, store := storage(t)
	dir := write(t, map[string]string{"drover.yaml": allSources, "bus": bus, "store": store})
	type received struct {
		*triggers.Message
		at time.Time
	}
	got := make(chan received, 1)
	funcs := handlers.Funcs{"f": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		got <- received{m, time.Now()}
		return nil, nil
	}}
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startWithFuncs(t, funcs, "run", file)
	log.WaitFor(t, `"running"`)
	for _, c := range []struct {
		function, query, subject string
		plain                    bool // without headers and properties
		later                    bool // its ID is not known before it is received
	}{
		{"nats", "?header=team=blue&property=correlation_id=c1", "nats", false, false},
		{"nats", "?header=team=blue&property=correlation_id=c1&id=n1", "nats", false, false},
		{"nats", "?header=team=blue&property=correlation_id=c1&delay=1s", "nats", false, true},
		{"pattern", "?header=team=blue&property=correlation_id=c1&subject=shop.7.new", "shop.7.new", false, false},
		{"bus", "?header=team=blue&property=correlation_id=c1", "", false, false},
		{"bus", "?header=team=blue&property=correlation_id=c1&delay=1s&id=b1", "", false, false},
		{"store", "", "jobs", true, false},
		{"store", "?delay=1s", "jobs", true, false},
	} {
		before := time.Now()
		status, text := postMessage(t, dir, c.function, c.query, "hello")
		var sent api.Sent
		if err := json.Unmarshal([]byte(text), &sent); err != nil || status != http.StatusOK {
			t.Fatalf("%s%s: %d, %s", c.function, c.query, status, text)
		}
		m := <-got
		if string(m.Body) != "hello" || m.ID != sent.ID && (!c.later || sent.ID != "") || c.subject != "" && m.Subject != c.subject {
			t.Errorf("%s%s: sent %+v, received %s", c.function, c.query, sent, m.ID)
		}
		if !c.plain && (m.Attributes["team"] != "blue" || m.Property(triggers.CorrelationID) != "c1" || m.Property(triggers.ContentType) != "text/plain") {
			t.Errorf("%s%s: received %v, %v", c.function, c.query, m.Attributes, m.Properties())
		}
		// AMQP times have milliseconds.
		if delayed := strings.Contains(c.query, "delay"); delayed != !sent.ScheduledAt.IsZero() || delayed && m.at.Before(before.Truncate(time.Millisecond).Add(time.Second)) {
			t.Errorf("%s%s: sent %+v at %v, received at %v", c.function, c.query, sent, before, m.at)
		}
	}
	for _, c := range []struct {
		function, query string
		want            int
		says            string
	}{
		{"web", "", 422, "function web has an http trigger, which receives requests and no messages: curl -X"},
		{"clock", "", 422, "function clock is run by a timer, which receives no messages; to run it now: drover invoke"},
		{"pattern", "", 400, `subject is \"\"; function pattern consumes the subjects shop.*.new; send to one subject that it matches`},
		{"pattern", "?subject=shop.*.new", 400, "send to one subject"},
		{"pattern", "?subject=$JS.API.INFO", 400, "send to one subject"},
		{"nats", "?subject=other", 400, "the messages of function nats have the subject nats"},
		{"nats", "?property=to=x", 400, "NATS has no header for the property to; use the parameter header"},
		{"nats", "?at=2020-01-31T08:00:00Z", 400, "is in the past"},
		{"store", "?delay=169h", 400, "too far ahead: a storage queue can hold a message for at most 7 days"},
		{"store", "?header=a=b", 400, "a storage queue has no headers"},
		{"store", "?id=7", 400, "a storage queue has no properties and assigns IDs itself"},
		{"store", "?session=7", 400, "a storage queue has no sessions"},
	} {
		if status, text := postMessage(t, dir, c.function, c.query, "hello"); status != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%s%s: %d, %s; want %d, %s", c.function, c.query, status, text, c.want, c.says)
		}
	}
	if status, text := postMessage(t, dir, "store", "", strings.Repeat("x", 64<<10)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit of the service: %d, %s", status, text)
	}
	for _, function := range []string{"nats", "bus", "store"} {
		at := time.Now().Add(2 * time.Second).Truncate(time.Second)
		status, out, errs := command(t.Context(), nil, strings.NewReader(""), "send", "-c", file, function, "--body", "late", "--at", at.Format(time.RFC3339))
		if want := "sent 1 to "; status != ExitOK || !strings.HasPrefix(out, want) || !strings.HasSuffix(out, ", due at "+at.Format(time.RFC3339)+"\n") {
			t.Fatalf("%s: status %d, %s%s", function, status, out, errs)
		}
		if m := <-got; string(m.Body) != "late" || m.at.Before(at) {
			t.Errorf("%s: %s was received at %v, and is due at %v", function, m.Body, m.at, at)
		}
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
}
