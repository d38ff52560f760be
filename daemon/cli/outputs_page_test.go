package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// orders is the example in Go of docs/outputs.md.
func orders(ctx context.Context, m *triggers.Message) ([]byte, error) {
	for _, event := range []string{"opened", "closed"} {
		if err := handlers.Send(ctx, "audit", []byte(event), nil); err != nil {
			return nil, err
		}
	}
	return []byte("done"), handlers.Send(ctx, "receipts", m.Body, triggers.Properties{triggers.SessionID: "7"})
}

// The examples of named outputs in docs/outputs.md send the messages that the page shows.
func TestExamplesOfNamedOutputs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/outputs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Named outputs\n")
	example := func(language string) string {
		_, after, found := strings.Cut(section, "```"+language+"\n")
		code, _, ends := strings.Cut(after, "```")
		if !found || !ends {
			t.Fatalf("no example in %s", language)
		}
		return code
	}
	source, err := os.ReadFile("outputs_page_test.go")
	if err != nil || !strings.Contains(string(source), example("go")) {
		t.Errorf("the example in Go is not the one of this test (%v)", err)
	}
	const connections = `
connections:
  bus: {connection_string: "Endpoint=sb://nowhere.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=czNjcjN0"}
  store: {connection_string: UseDevelopmentStorage=true}
  local: {nats: "nats://127.0.0.1:9"}
`
	for language, test := range map[string]struct{ handler, file, receipt, session string }{
		"python": {"python: {path: ./app}", "app/function_app.py", `{"id":7}`, "ann"},
		"js":     {"node: {path: ./app}", "app/index.js", `{"id":7}`, "ann"},
		"go":     {"go: orders", "app/orders.go", `{"id": 7, "customer": "ann"}`, "7"},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if language == "js" {
				needNode(t)
			}
			config := strings.Replace(example("yaml"), "python: {path: ./app}", test.handler, 1)
			file := filepath.Join(write(t, map[string]string{"drover.yaml": config + connections, test.file: example(language)}), "drover.yaml")
			status, out, errs := command(t.Context(), handlers.Funcs{"orders": orders}, nil, "invoke", "orders", "-c", file, "--body", `{"id": 7, "customer": "ann"}`, "--json")
			var report invoke.Report
			if err := json.Unmarshal([]byte(out), &report); err != nil || status != ExitOK || report.Output == nil || *report.Output != "done" || report.OutputTo != "subject orders.done on local" {
				t.Fatalf("status %d, %v\n%s%s", status, err, out, errs)
			}
			sent := make(map[string][]string)
			for _, o := range report.Outputs {
				sent[o.Name] = append(sent[o.Name], *o.Body)
				if o.Name == "receipts" && o.Properties[triggers.SessionID] != test.session {
					t.Errorf("the receipt has %v", o.Properties)
				}
			}
			if len(sent) != 2 || strings.Join(sent["receipts"], ",") != test.receipt || strings.Join(sent["audit"], ",") != "opened,closed" {
				t.Errorf("it sent %q", sent)
			}
		})
	}
}
