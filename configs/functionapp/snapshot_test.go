package functionapp

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
)

// Instances create the same configuration from a snapshot, without the files and the index.
func TestRestore(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"host.json":           `{"version": "2.0", "functionTimeout": "00:00:07", "retry": {"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:03"}}`,
		"local.settings.json": `{"Values": {"AzureWebJobsStorage": "UseDevelopmentStorage=true", "Q": "items", "AzureWebJobs.Off.Disabled": "1"}}`,
		"One/function.json":   `{"bindings": [{"type": "queueTrigger", "name": "msg", "queueName": "%Q%"}, {"type": "queue", "direction": "out", "name": "$return", "queueName": "done"}]}`,
		"One/__init__.py":     "",
		"Off/function.json":   `{"bindings": [{"type": "queueTrigger", "name": "msg", "queueName": "off"}]}`,
		"Off/__init__.py":     "",
	}
	a := read(t, files)
	index := indexed(map[string]string{"One": `[{"type": "queueTrigger", "name": "msg", "queueName": "%Q%"}, {"type": "queue", "direction": "out", "name": "$return", "queueName": "done"}]`})
	text := []byte("functions: {One: {concurrency: 3}}\nscale: {instances: {min: 2, max: 2}}\n")
	made := a.Translate(index)
	if err := made.Complete("drover.yaml", text); err != nil {
		t.Fatal(err)
	}
	env, _ := environment()
	restored, err := Restore(made.Config.FunctionApp, env)
	if err != nil {
		t.Fatal(err)
	}
	f := restored.Functions["One"]
	if f.Concurrency != 3 || f.Timeout.D() != 7*time.Second || f.Retry.MaxAttempts != 3 || f.Trigger.StorageQueue.Queue != "items" || len(f.Output) != 1 || f.Output[0].Name != "$return" {
		t.Errorf("the function is %+v", f)
	}
	if string(f.Handler.Python.Azure.Retry) != `{"delayInterval":"00:00:03","maxRetryCount":"2","strategy":"fixedDelay"}` {
		t.Errorf("its retry is %s", f.Handler.Python.Azure.Retry)
	}
	for what, pair := range map[string][2]any{
		"functions": {made.Config.Functions, restored.Functions}, "connections": {made.Config.Connections, restored.Connections}, "apps": {made.Config.Apps, restored.Apps},
		"functions that do not run": {made.Config.NotRun, restored.NotRun}, "data directory": {made.Config.DataDir, restored.DataDir}, "scale": {made.Config.Scale, restored.Scale},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("the %s differ: %+v and %+v", what, pair[0], pair[1])
		}
	}
	if want := []configs.NotRun{{Function: "Off", Reason: "disabled by AzureWebJobs.Off.Disabled (local.settings.json)", Disabled: true}}; !reflect.DeepEqual(restored.NotRun, want) {
		t.Errorf("not run: %+v", restored.NotRun)
	}
	if _, err := Restore([]byte("{"), env); err == nil {
		t.Error("a damaged snapshot is restored")
	}
}

// Outputs have the names of their bindings, in the same order.
func TestOutputs(t *testing.T) {
	t.Parallel()
	tr := translated(t, map[string]string{
		"host.json":           `{"version": "2.0", "extensions": {"queues": {"messageEncoding": "none"}}}`,
		"local.settings.json": `{"Values": {"AzureWebJobsStorage": "UseDevelopmentStorage=true", "Bus": "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=s"}}`,
	}, map[string]string{"one": `[
		{"type": "queue", "direction": "OUT", "name": "words", "queueName": "words", "connection": "AzureWebJobsStorage"},
		{"type": "serviceBus", "direction": "OUT", "name": "news", "topicName": "news", "connection": "Bus"},
		{"type": "queueTrigger", "direction": "IN", "name": "msg", "queueName": "items", "connection": "AzureWebJobsStorage"},
		{"type": "serviceBus", "direction": "OUT", "name": "$return", "queueName": "steps", "connection": "Bus"}]`})
	if err := tr.Complete("", nil); err != nil {
		t.Fatal(err)
	}
	out := tr.Config.Functions["one"].Output
	if len(out) != 3 || out[0].Name != "words" || out[1].Name != "news" || out[2].Name != "$return" {
		t.Fatalf("the outputs are %v", out)
	}
	if q := out[0].StorageQueue; !q.Create || q.Encoding != "text" || q.Queue != "words" {
		t.Errorf("the queue is %+v", q)
	}
	if out[1].ServiceBus.Topic != "news" || out[2].ServiceBus.Queue != "steps" {
		t.Errorf("the outputs are %v", out)
	}
	bad := translated(t, nil, map[string]string{"one": `[{"type": "queueTrigger", "name": "msg", "queueName": "items"}, {"type": "queue", "direction": "OUT", "name": "größe", "queueName": "words"}]`})
	if len(bad.Errors) != 1 || !strings.Contains(bad.Errors[0].Message, `"größe" cannot be the name of an output`) || len(bad.Config.NotRun) != 1 || !bad.Config.NotRun[0].Failed {
		t.Errorf("the errors are %v", bad.Errors)
	}
}

// The most specific category sets the level of a function.
func TestFunctionLevels(t *testing.T) {
	t.Parallel()
	const trigger = `[{"type": "queueTrigger", "name": "msg", "queueName": "%s"}]`
	functions := make(map[string]string)
	for _, name := range []string{"loud", "own", "other"} {
		functions[name] = strings.ReplaceAll(trigger, "%s", name+"-queue")
	}
	for host, want := range map[string][4]string{
		`{}`:                      {"info", "auto", "auto", "auto"},
		`{"default": "Critical"}`: {"error", "auto", "auto", "auto"},
		`{"default": "Warning", "Function": "Error", "function.loud": "Trace", "Function.own": "Error", "Function.own.User": "Information"}`: {"warn", "debug", "info", "error"},
	} {
		tr := translated(t, map[string]string{"host.json": `{"version": "2.0", "logging": {"logLevel": ` + host + `}}`}, functions)
		if err := tr.Complete("", nil); err != nil {
			t.Fatal(err)
		}
		f := tr.Config.Functions
		if got := [4]string{tr.Config.Log.Level, f["loud"].LogLevel, f["own"].LogLevel, f["other"].LogLevel}; got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

// Timers keep their state in data_dir, or in the storage account if several machines share them.
func TestTimerStores(t *testing.T) {
	t.Parallel()
	const timer = `[{"type": "timerTrigger", "name": "t", "schedule": "0 0 * * * *"}]`
	storage := `{"Values": {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}}`
	for _, test := range []struct {
		name, settings, yaml, connection, group string
		env                                     []string
	}{
		{"one machine", storage, "", "", "", nil},
		{"instances on one machine", storage, "scale: {instances: {max: 3}}", "", "", nil},
		{"a host ID", storage, "", "AzureWebJobsStorage", "my-shop", []string{"AzureFunctionsWebHost__hostid=My_Shop"}},
		{"a long host ID", storage, "", "AzureWebJobsStorage", "aaaaaaaaaaaaaaaaaaaaaaaa", []string{"AzureFunctionsWebHost__hostid=" + strings.Repeat("a", 32)}},
		{"a host ID, and no storage", `{}`, "", "", "", []string{"AzureFunctionsWebHost__hostid=shop"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := read(t, map[string]string{"function_app.py": "", "local.settings.json": test.settings}, test.env...)
			var text []byte
			if test.yaml != "" {
				text = []byte(test.yaml)
			}
			if _, err := a.General("drover.yaml", text); err != nil {
				t.Fatal(err)
			}
			tr := a.Translate(indexed(map[string]string{"one": timer}))
			if err := tr.Complete("drover.yaml", text); err != nil {
				t.Fatal(err)
			}
			own := tr.Config.Functions["one"].Trigger.Timer
			if own.Connection != test.connection || own.Group != test.group {
				t.Errorf("it is kept at %q by group %q; want %q, %q", own.Connection, own.Group, test.connection, test.group)
			}
		})
	}
}
