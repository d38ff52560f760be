package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// The commands work in the same way for all sources.
func TestDeadLettersOnAzure(t *testing.T) {
	t.Parallel()
	_, bus := namespace(t)
	_, store := storage(t)
	dir := write(t, map[string]string{"bus": bus, "store": store, "drover.yaml": `
log: {level: warn}
connections:
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
functions:
  orders:
    trigger: {servicebus: {}}
    handler: {go: greet}
  billing:
    trigger: {servicebus: {topic: events}}
    handler: {go: greet}
  images:
    trigger: {storage_queue: {create: true, poison_format: envelope, max_poll_interval: 100ms}}
    handler: {go: greet}
`})
	file := filepath.Join(dir, "drover.yaml")
	functions := []string{"orders", "billing", "images"}
	got := newPrinted()
	daemonOf(t, file, rejecting(got))
	for _, f := range functions {
		dead(t, file, 0, "no dead letters", "list", f)
		if status, out, errs := command(t.Context(), nil, nil, "send", "-c", file, f, "--body", "bad "+f); status != 0 {
			t.Fatalf("send: %s%s", out, errs)
		}
		got.WaitFor(t, "got bad "+f+", attempt 1\n")
	}
	for _, f := range functions {
		var id string
		until(t, got, "it is dead", func() bool {
			for line := range strings.Lines(dead(t, file, 0, "dead letter", "list", f)) {
				if words := strings.Fields(line); strings.Contains(line, "a bad one") {
					id = words[0]
				}
			}
			return id != ""
		})
		dead(t, file, 0, "body, ", "show", f, id)
		dead(t, file, 0, "matched 1, would replay 1", "replay", f, "--all", "--dry-run")
		before := strings.Count(got.String(), "got bad "+f+", attempt 1\n")
		dead(t, file, 0, "matched 1, replayed 1, left 0", "replay", f, "--id", id)
		until(t, got, "it runs again", func() bool { return strings.Count(got.String(), "got bad "+f+", attempt 1\n") > before })
		until(t, got, "it is dead again", func() bool {
			return strings.Contains(dead(t, file, 0, "dead letter", "list", f), "1 dead letter\n")
		})
		dead(t, file, 0, "matched 1, purged 1, left 0", "purge", f, "--reason", "bad one", "--yes")
		dead(t, file, 0, "no dead letters", "list", f)
	}
}
