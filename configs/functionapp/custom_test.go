package functionapp

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs/posting"
)

const (
	customHost    = `{"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "bin/handler", "arguments": ["--one", "%PORT%"]}}}`
	queueFunction = `{"bindings": [
		{"type": "queueTrigger", "direction": "in", "name": "order", "queueName": "orders", "connection": "AzureWebJobsStorage", "dataType": "binary"},
		{"type": "queue", "direction": "out", "name": "receipt", "queueName": "receipts", "connection": "AzureWebJobsStorage"}]}`
	customSettings = `{"Values": {"AzureWebJobsStorage": "UseDevelopmentStorage=true", "FUNCTIONS_WORKER_RUNTIME": "custom", "DIR": "tools"}}`
)

func TestCustomHandler(t *testing.T) {
	t.Parallel()
	a := read(t, map[string]string{
		"host.json": customHost, "local.settings.json": customSettings, "Price/function.json": queueFunction, "function_app.py": "# is ignored",
		"Off/function.json":  `{"disabled": true, "bindings": [{"type": "queueTrigger", "name": "m", "queueName": "q12"}]}`,
		"Tick/function.json": `{"bindings": [{"type": "timerTrigger", "direction": "in", "name": "tick", "schedule": "0 0 * * * *"}]}`,
		"Page/function.json": `{"bindings": [{"type": "httpTrigger", "direction": "in", "name": "req"}, {"type": "http", "direction": "out", "name": "res"}]}`,
		"Old/function.json":  `{"bindings": [{"type": "blobTrigger", "name": "b", "path": "x"}]}`,
	})
	if _, needed := a.Request(); needed {
		t.Error("an interpreter is asked for its functions")
	}
	tr := a.Translate(Index{})
	if err := tr.Complete("", nil); err != nil || len(tr.Errors) > 0 {
		t.Fatalf("%v, %v", err, tr.Errors)
	}
	f, found := tr.Config.Functions["Price"]
	if !found || len(tr.Config.Functions) != 3 || len(tr.Functions) != 5 {
		t.Fatalf("the functions are %v", tr.Config.Functions)
	}
	h := f.Handler.HTTP
	if h == nil || h.App != AppName || h.URL != "http://127.0.0.1/Price" || h.Format != "azure" || h.Binding != "order" || h.DataType != "binary" || !slices.Equal(h.Outputs, []string{"receipt"}) {
		t.Errorf("the handler is %+v", h)
	}
	if h := tr.Config.Functions["Tick"].Handler.HTTP; h == nil || h.DataType != "json" {
		t.Errorf("the timer's handler is %+v", h)
	}
	if h := tr.Config.Functions["Page"].Handler.HTTP; h == nil || h.Reply != "res" || h.Forward {
		t.Errorf("the handler of requests is %+v", h)
	}
	if q := f.Trigger.StorageQueue; q == nil || q.Queue != "orders" {
		t.Errorf("the trigger is %+v", f.Trigger)
	}
	app := tr.Config.Apps[AppName]
	want := posting.Server{Program: "bin/handler", Arguments: []string{"--one", "%PORT%"}, Dir: a.Dir, From: "customHandler, host.json:1"}
	if app.Server == nil || !reflect.DeepEqual(*app.Server, want) || app.Language != "server" || app.Dir != a.Dir {
		t.Errorf("the app is %+v, its server %+v", app, app.Server)
	}
	var out strings.Builder
	if err := tr.Describe(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, part := range []string{"5 functions, custom handler", "custom handler bin/handler --one %PORT%, in " + a.Dir + ", on a free port (customHandler, host.json:1)", "function Price Price/function.json"} {
		if !strings.Contains(text, part) {
			t.Errorf("the description has no %q:\n%s", part, out.String())
		}
	}
}

func TestServerOfACustomHandler(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handler string
		env     []string
		want    posting.Server // Dir is relative to the app
	}{
		"all": {
			`"port": 7072, "description": {"defaultExecutablePath": "node", "workingDirectory": "src", "arguments": ["--x"], "defaultWorkerPath": "server.js", "workerArguments": ["a", "b"]}`, nil,
			posting.Server{Program: "node", Dir: "src", Arguments: []string{"--x", `"server.js"`, "a", "b"}, Port: 7072},
		},
		"a variable":              {`"description": {"defaultExecutablePath": "%DIR%/handler%NONE%"}`, nil, posting.Server{Program: "tools/handler"}},
		"its own directory":       {`"description": {"defaultExecutablePath": "handler", "workerDirectory": "%DIR%"}`, nil, posting.Server{Program: "tools/handler"}},
		"a directory without it":  {`"description": {"defaultExecutablePath": "node", "workerDirectory": "tools"}`, nil, posting.Server{Program: "node"}},
		"arguments of a variable": {`"description": {"defaultExecutablePath": "x"}`, []string{`AzureFunctionsJobHost__customHandler__description__arguments=["one", "t w o"]`}, posting.Server{Program: "x", Arguments: []string{"one", "t w o"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := read(t, map[string]string{
				"host.json": `{"version": "2.0", "customHandler": {` + test.handler + `}}`, "local.settings.json": customSettings, "Price/function.json": queueFunction, "tools/handler": "",
			}, test.env...)
			got := a.server()
			got.Dir, _ = filepath.Rel(a.Dir, got.Dir)
			test.want.Dir = filepath.Clean(test.want.Dir)
			test.want.From = "customHandler, host.json:1"
			if !reflect.DeepEqual(*got, test.want) {
				t.Errorf("%+v, want %+v", *got, test.want)
			}
		})
	}
}

// A drover.yaml beside a custom handler may be a whole configuration, or settings of the app.
func TestFindBesideACustomHandler(t *testing.T) {
	t.Parallel()
	for text, isApp := range map[string]bool{
		"": true,
		"version: 1\nfunctions: {f: {timeout: 1m}}":                                         true,
		"# a trigger: is not here\napps: {app: {processes: 1}}":                             true,
		"functions:\n  f:\n    trigger: {nats: {}}\n    handler: {http: {url: http://x}}\n": false,
		"functions: {f: {trigger: {nats: {}}}}":                                             false,
	} {
		dir := write(t, map[string]string{"host.json": customHost})
		file := filepath.Join(dir, "drover.yaml")
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{dir, file} {
			if got, found := Find(path); found != isApp || got != dir {
				t.Errorf("%q: %s, %v; want %v", text, got, found, isApp)
			}
		}
	}
}
