package cli

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// The results of a function are sent to outputs of all kinds.
func TestOutputsOfAllKinds(t *testing.T) {
	t.Parallel()
	bus, connection := namespace(t)
	store, account := storage(t)
	if err := errors.Join(bus.CreateQueue("results", emulator.QueueOptions{}), store.CreateQueue("results")); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"bus": connection, "store": account, "drover.yaml": `
connections:
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
  local: {nats: embedded}
functions:
  double:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
    output: [{nats: {subject: seen}}, {servicebus: {queue: results}}, {storage_queue: {queue: results}}]
  seen:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
`, "app/function_app.py": `
def double(body): return int(body) * 2
def seen(body): print("seen", body.decode())
`})
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, nil, "check", file)
	for _, want := range []string{"subject seen on local", "queue results of Service Bus on bus", "storage queue results on store, as base64"} {
		if status != ExitOK || !strings.Contains(out, want) {
			t.Errorf("check: status %d, no %q in\n%s%s", status, want, out, errs)
		}
	}
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, `"running"`)
	if status, _, errs := command(t.Context(), nil, nil, "send", "double", "-c", file, "--body", "21"); status != 0 {
		t.Fatal(errs)
	}
	log.WaitFor(t, "seen 42")
	waitLen(t, account, "results", 1)
	until(t, log, "the result on the bus", func() bool {
		got, err := bus.Counts("results")
		return err == nil && got.Active == 1
	})
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
}
