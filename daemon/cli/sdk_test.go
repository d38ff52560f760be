package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers/sdktest"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// Azure's SDKs for Python send to a function and receive its results.
func TestOutputsReadByPythonSDK(t *testing.T) {
	t.Parallel()
	bus, busConnection := namespace(t)
	account, storageConnection := storage(t)
	for _, err := range []error{bus.CreateQueue("receipts", emulator.QueueOptions{}), account.CreateQueue("plain"), account.CreateQueue("coded")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := write(t, map[string]string{
		"bus": busConnection, "store": storageConnection,
		"drover.yaml": `
connections:
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
functions:
  orders:
    trigger: {servicebus: {}}
    handler: {python: {path: ./app}}
    output:
      - servicebus: {queue: receipts}
      - servicebus: {topic: events}
      - storage_queue: {queue: plain, encoding: text}
      - storage_queue: {queue: coded}
`,
		"app/function_app.py": `
import drover

def orders(message):
    kind = message.json()["kind"]
    if kind == "bad":
        raise drover.Reject("no such order")
    if kind == "output":
        return drover.Output("a;b\r\n1;é\r\n", content_type="text/csv", correlation_id="c2", reply_to="answers", to="there", subject="sub",
                             message_id="out-1", attributes={"team": "blue"})
    return {"kind": kind, "id": message.id, "correlation": message.correlation_id, "subject": message.properties.get("subject"),
            "type": message.content_type, "é": "<&\">", **{k: message.attributes[k] for k in ("n", "flag") if k in message.attributes}}
`})
	log, stop := startCommand(t, "run", filepath.Join(dir, "drover.yaml"))
	sdktest.Run(t, filepath.Join("testdata", "outputs.py"), busConnection, storageConnection)
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if t.Failed() {
		t.Log(log)
	}
}

const natsConfig = `
functions:
  orders:
    trigger: {nats: {subject: "orders.>"}}
    handler: {python: {path: ./app}}
    output: {nats: {subject: receipts}}
`

// natsDaemon runs a daemon with the embedded server, and returns its URL, token and log.
func natsDaemon(t *testing.T) (url, token string, log *printed) {
	t.Helper()
	dir := write(t, map[string]string{"drover.yaml": natsConfig, "app/function_app.py": `
import drover

def orders(message):
    if message.body == b"bad":
        raise drover.Reject("no such order")
    return message.body + b"\x00/" + str(message.attributes.get("kind")).encode()
`})
	log, _ = startCommand(t, "run", filepath.Join(dir, "drover.yaml"))
	log.WaitFor(t, `"running"`)
	text, err := os.ReadFile(filepath.Join(dir, ".drover", "nats-embedded", "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	var client struct{ URL, Token string }
	if err := json.Unmarshal(text, &client); err != nil {
		t.Fatal(err)
	}
	return client.URL, client.Token, log
}

func TestNATSPy(t *testing.T) {
	t.Parallel()
	url, token, _ := natsDaemon(t)
	sdktest.Run(t, filepath.Join("testdata", "natsclient.py"), url, token)
}

// The command nats works with the embedded server, in both directions.
func TestNatscli(t *testing.T) {
	t.Parallel()
	command := sdktest.Natscli(t)
	url, token, log := natsDaemon(t)
	config := t.TempDir()
	for _, step := range []struct{ args, want string }{
		{"stream ls --names", "orders"},
		{"stream info orders --json", `"retention": "workqueue"`},
		{"consumer info orders orders --json", `"max_deliver": -1`},
		{"stream add RECEIPTS --subjects receipts --storage file --defaults", "RECEIPTS"},
		{"pub orders.a hello -H kind:new --jetstream", "Stored in Stream: orders"},
		{"consumer add RECEIPTS reader --pull --filter receipts --defaults", "reader"},
		{"consumer next RECEIPTS reader --ack --wait 60s", "hello\x00/new"},
		{"pub orders.b bad", "Published"},
		{"consumer add orders-DEAD reader --pull --defaults", "reader"},
		{"consumer next orders-DEAD reader --ack --wait 60s", "no such order"},
		{"request $JS.API.STREAM.MSG.GET.orders-DEAD {\"last_by_subj\":\"orders-DEAD.orders.b\"} --raw", "orders-DEAD.orders.b"},
		{"kv add settings --history 3", "settings"},
		{"kv put settings colour blue", "blue"},
		{"kv get settings colour --raw", "blue"},
		{"stream rm RECEIPTS --force", ""},
		{"stream ls --names", "orders-DEAD"},
	} {
		cmd := exec.CommandContext(t.Context(), command, append([]string{"--server", url, "--token", token, "--timeout", "60s"}, strings.Fields(step.args)...)...)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+config, "HOME="+config)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), step.want) {
			t.Errorf("nats %s: %v\n%s\nwant %q", step.args, err, out, step.want)
		}
		if step.args == "pub orders.b bad" {
			log.WaitFor(t, "message dead-lettered") // by then the stream exists
		}
	}
}
