package cli

import (
	"bytes"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// A Python function answers a request: it receives the properties that drover send set, and its
// answer has those that the function set.
func TestARequestIsAnswered(t *testing.T) {
	t.Parallel()
	e, connection := namespace(t)
	if err := e.CreateQueue("answers", emulator.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
connections:
  bus: {connection_string: "file:secret"}
functions:
  orders:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app}}
    output: {servicebus: {queue: answers}}
`, "app/function_app.py": `
import drover

def orders(message):
    assert message.content_type == "application/json" and message.reply_to == "answers" and message.delivery_count == 1, message.properties
    assert isinstance(message.sequence_number, int) and message.expires_at is None, message.properties
    if message.json() == 1:
        return {"plain": 1}
    return drover.Output({"price": 7}, correlation_id=message.correlation_id or message.id, subject="priced", attributes={"n": "1"})
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	defer func() {
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	}()
	for _, body := range []string{"1", "2"} {
		args := []string{"send", "-c", file, "orders", "--body", body, "-P", "content_type=application/json", "-P", "reply_to=answers", "-P", "message_id=m" + body}
		if status, out, errs := command(t.Context(), nil, nil, args...); status != 0 {
			t.Fatalf("send: %s%s", out, errs)
		}
	}
	c, err := azservicebus.NewClientFromConnectionString(connection, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	r, err := c.NewReceiverForQueue("answers", nil)
	if err != nil {
		t.Fatal(err)
	}
	answers := make(map[string]*azservicebus.ReceivedMessage)
	for len(answers) < 2 {
		got, err := r.ReceiveMessages(t.Context(), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got {
			answers[string(m.Body)] = m
		}
	}
	plain, priced := answers[`{"plain":1}`], answers[`{"price":7}`]
	if plain == nil || priced == nil {
		t.Fatalf("%v", answers)
	}
	if plain.ContentType == nil || *plain.ContentType != "application/json" || plain.CorrelationID != nil {
		t.Errorf("%+v", plain)
	}
	if priced.ContentType == nil || *priced.ContentType != "application/json" || priced.CorrelationID == nil || *priced.CorrelationID != "m2" ||
		priced.Subject == nil || *priced.Subject != "priced" || priced.ApplicationProperties["n"] != "1" {
		t.Errorf("%+v", priced)
	}
}

// A file of messages keeps properties and repeated headers, and a terminal shows them.
func TestPropertiesInFilesAndLetters(t *testing.T) {
	m := &triggers.Message{
		ID: "m", Body: []byte("b"), Attributes: map[string]string{"a": "1"}, Repeated: map[string][]string{"a": {"1", "2"}}, Origin: triggers.Known{triggers.ContentType: "text/csv"},
	}
	text, err := messagefile.MarshalMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	letter, err := deadletter.MarshalLine(triggers.DeadLetter{ID: "7", Message: *m})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]byte{text, letter} {
		dir := write(t, map[string]string{"m.jsonl": string(line)})
		all, err := messagefile.ReadPath(filepath.Join(dir, "m.jsonl"))
		if err != nil || len(all.All) != 1 {
			t.Fatal(all, err)
		}
		if got := all.All[0]; !maps.Equal(got.Properties(), m.Properties()) || strings.Join(got.Values("a"), " ") != "1 2" {
			t.Errorf("%+v of %s", got, line)
		}
	}
	shown := deadletter.FullText(triggers.DeadLetter{ID: "7", Message: *m})
	for _, want := range []string{"content_type = text/csv", "a = 1", "a = 2"} {
		if !bytes.Contains([]byte(shown), []byte(want)) {
			t.Errorf("%s lacks %q", shown, want)
		}
	}
}
