package functionapp

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
)

// write writes an app, with a host.json unless it has one.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"host.json": `{"version": "2.0"}`}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// environment returns the lookup and the list of variables, as NAME=VALUE.
func environment(variables ...string) (configs.Env, []string) {
	return func(name string) (string, bool) {
		for _, variable := range variables {
			if value, found := strings.CutPrefix(variable, name+"="); found {
				return value, true
			}
		}
		return "", false
	}, variables
}

func read(t *testing.T, files map[string]string, variables ...string) *App {
	t.Helper()
	env, environ := environment(variables...)
	a, err := Read(write(t, files), env, environ)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// indexed returns the index of an app with some functions, each with its bindings as JSON.
func indexed(functions map[string]string) (index Index) {
	for name, bindings := range functions {
		f := Indexed{Name: name, Module: "function_app", Entry: name, File: "function_app.py", Line: 1, HTTPType: "function"}
		if err := json.Unmarshal([]byte(bindings), &f.Bindings); err != nil {
			panic(err)
		}
		index.Functions = append(index.Functions, f)
	}
	slices.SortFunc(index.Functions, func(a, b Indexed) int { return strings.Compare(a.Name, b.Name) })
	return index
}

const onItems = `[{"type": "queueTrigger", "direction": "IN", "name": "msg", "queueName": "items", "connection": "AzureWebJobsStorage"}]`

func translated(t *testing.T, files, functions map[string]string, variables ...string) *Translation {
	t.Helper()
	all := map[string]string{"function_app.py": "# an app\n", "local.settings.json": `{"Values": {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}}`}
	for name, text := range files {
		all[name] = text
	}
	return read(t, all, variables...).Translate(indexed(functions))
}

// Invalid files are reported with the place of the mistake.
func TestFilesThatAreWrong(t *testing.T) {
	t.Parallel()
	app := map[string]string{"function_app.py": ""}
	folder := func(function string, more ...string) map[string]string {
		files := map[string]string{"One/function.json": function}
		for _, name := range more {
			files[name] = ""
		}
		return files
	}
	const trigger = `{"type": "queueTrigger", "name": "m", "queueName": "q"}`
	for _, test := range []struct {
		name  string
		files map[string]string
		env   []string
		want  string
	}{
		{"an open brace", map[string]string{"host.json": "{\n  \"version\": \"2.0\",\n  \"extensions\": {\"queues\": {}}\n"}, nil, "host.json:4:1: invalid JSON: the text ends too early: a brace, a bracket or a quote is not closed"},
		{"a missing comma", map[string]string{"host.json": "{\n  \"version\": \"2.0\"\n  \"retry\": {}\n}"}, nil, "host.json:3:3: invalid JSON: "},
		{"no object", map[string]string{"host.json": "[]"}, nil, "host.json:1:1: it must be an object"},
		{"no version", map[string]string{"host.json": `{"logging": {}}`}, nil, `host.json:1:1: it has no version; add: "version": "2.0"`},
		{"another version", map[string]string{"host.json": `{"version": "1.0"}`}, nil, `host.json:1:13: version: "1.0" is not a version that drover reads`},
		{"a number out of bounds", map[string]string{"host.json": `{"version": "2.0", "extensions": {"queues": {"batchSize": 64}}}`}, nil, "host.json:1:59: extensions.queues.batchSize: 64 is out of bounds: 1 to 32"},
		{"no number", map[string]string{"host.json": `{"version": "2.0", "extensions": {"queues": {"batchSize": "4x"}}}`}, nil, `extensions.queues.batchSize: "4x" is not a whole number`},
		{"no time span", map[string]string{"host.json": `{"version": "2.0", "functionTimeout": "5m"}`}, nil, `functionTimeout: "5m" is not a time span; write hh:mm:ss`},
		{"another word", map[string]string{"host.json": `{"version": "2.0", "extensions": {"queues": {"messageEncoding": "utf8"}}}`}, nil, `"utf8" is not allowed; write one of: base64, none`},
		{"an override that is wrong", nil, []string{"AzureFunctionsJobHost__functionTimeout=soon"}, `AzureFunctionsJobHost__functionTimeout: "soon" is not a time span`},
		{"encrypted settings", map[string]string{"local.settings.json": "{\n  \"IsEncrypted\": true,\n  \"Values\": {\"A\": \"x\"}}"}, nil, "local.settings.json:2:18: its Values are encrypted, with a key that only Core Tools has; run this in "},
		{"settings that are no text", map[string]string{"local.settings.json": `{"Values": {"A": {"B": "SECRET"}}}`}, nil, "local.settings.json:1:18: Values.A must be a string; write JSON in quotes"},
		{"a list of settings", map[string]string{"local.settings.json": `{"Values": []}`}, nil, "Values must be an object"},
		{"a syntax error beside a secret", map[string]string{"local.settings.json": "{\"Values\": {\"A\": \"SECRET\"\n\"B\": 1}}"}, nil, "local.settings.json:2:1: invalid JSON"},
		{"another language", map[string]string{"local.settings.json": `{"Values": {"FUNCTIONS_WORKER_RUNTIME": "node"}}`}, nil, "FUNCTIONS_WORKER_RUNTIME is node; drover runs function apps in Python, and custom handlers in any language"},
		{"no custom handler", nil, []string{"FUNCTIONS_WORKER_RUNTIME=custom"}, "FUNCTIONS_WORKER_RUNTIME is custom, but host.json has no customHandler.description.defaultExecutablePath"},
		{"a custom handler without a program", map[string]string{"host.json": `{"version": "2.0", "customHandler": {"enableForwardingHttpRequest": true}}`}, nil, "customHandler has no description.defaultExecutablePath"},
		{"a custom handler without functions", map[string]string{"host.json": `{"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}}}`}, nil, "0 functions: the directory has a host.json with a custom handler, but no folder with a function.json"},
		{"a port that is none", map[string]string{"host.json": `{"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}, "port": 99999}}`}, nil, "customHandler.port: 99999 is out of bounds: 1 to 65535"},
		{"no script", nil, []string{"PYTHON_SCRIPT_FILE_NAME=shop.py"}, "PYTHON_SCRIPT_FILE_NAME is shop.py, but there is no such file in"},
		{"a script elsewhere", nil, []string{"PYTHON_SCRIPT_FILE_NAME=../shop.py"}, `PYTHON_SCRIPT_FILE_NAME is "../shop.py", which is not the name of a Python file in the app's directory`},
		{"nothing", map[string]string{"function_app.py": "NOT"}, nil, "0 functions: the directory has a host.json, but neither a function_app.py (model v2) nor a folder with a function.json (model v1)"},
		{"no script file", folder(`{"scriptFile": "nope.py", "bindings": [` + trigger + `]}`), nil, "One/function.json:1:16: function One: scriptFile is nope.py, but there is no such file in"},
		{"a misspelt script file", folder(`{"scriptFile": "cod.py", "bindings": [`+trigger+`]}`, "One/code.py"), nil, "did you mean code.py?"},
		{"no __init__.py", folder(`{"bindings": [` + trigger + `]}`), nil, "function One has no file __init__.py, and function.json no scriptFile"},
		{"a script outside", folder(`{"scriptFile": "../../x.py", "bindings": [` + trigger + `]}`), nil, "scriptFile is ../../x.py, which is outside of the app"},
		{"a script in another language", folder(`{"scriptFile": "index.js", "bindings": [` + trigger + `]}`), nil, "scriptFile is index.js, which is not a Python file"},
		{"no bindings", folder(`{}`, "One/__init__.py"), nil, "One/function.json:1:1: it has no list of bindings"},
		{"no trigger", folder(`{"bindings": [{"type": "queue", "name": "o", "direction": "out"}]}`, "One/__init__.py"), nil, "One/function.json:1:14: function One has no trigger"},
		{"two triggers", folder(`{"bindings": [`+trigger+`, {"type": "httpTrigger", "name": "r"}]}`, "One/__init__.py"), nil, "function One has 2 triggers, queueTrigger m and httpTrigger r; it must have exactly one"},
		{"a binding without a name", folder(`{"bindings": [{"type": "queueTrigger"}]}`, "One/__init__.py"), nil, "One/function.json:1:15: this binding has no name"},
		{"a binding without a type", folder(`{"bindings": [{"name": "m"}]}`, "One/__init__.py"), nil, "this binding has no type"},
		{"a direction", folder(`{"bindings": [{"type": "queueTrigger", "name": "m", "direction": "up"}]}`, "One/__init__.py"), nil, `"up" is not a direction; write in or out`},
		{"a number for a name", folder(`{"bindings": [{"type": "queueTrigger", "name": 5}]}`, "One/__init__.py"), nil, "name must be a string"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{}
			if _, described := test.files["One/function.json"]; !described && test.name != "nothing" {
				files["function_app.py"] = app["function_app.py"]
			}
			for name, text := range test.files {
				if text != "NOT" {
					files[name] = text
				}
			}
			env, environ := environment(test.env...)
			a, err := Read(write(t, files), env, environ)
			if err == nil {
				if errs := a.Translate(Index{}).Errors; len(errs) > 0 {
					err = errs // of a function of model v1
				}
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error is %v; want %s", err, test.want)
			}
		})
	}
}

// host.json and local.settings.json with the syntax that editors allow.
func TestFilesThatAreUnusual(t *testing.T) {
	t.Parallel()
	a := read(t, map[string]string{
		"function_app.py": "",
		"host.json":       "\ufeff{ // c\r\n  \"Version\": \"2.0\", /* d */ \"functiontimeout\": \"00:01:00\",\r\n}",
		"local.settings.json": "\ufeff{\"Values\": {\"N\": 5, \"B\": true, \"Null\": null, \"azurewebjobsSTORAGE\": \"UseDevelopmentStorage=true\",}," +
			"\"Host\": {\"LocalHttpPort\": 7171}, // the port\n}",
	})
	if got := a.host.timeout(); got != time.Minute {
		t.Errorf("functionTimeout is %v", got)
	}
	for name, want := range map[string]string{"N": "5", "B": "true", "AzureWebJobsStorage": "UseDevelopmentStorage=true"} {
		if got, from, _ := a.Settings.Lookup(name); got != want || from != settingsFile {
			t.Errorf("%s is %q from %q; want %q", name, got, from, want)
		}
	}
	if _, _, found := a.Settings.Lookup("Null"); found {
		t.Error("null is a value")
	}
	if e := read(t, map[string]string{"function_app.py": "", "host.json": "{}"}); e.host.timeout() != 30*time.Minute {
		t.Error("an empty host.json has other defaults")
	}
}

// The environment wins over local.settings.json, and both over host.json.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	a := read(t, map[string]string{
		"function_app.py":     "",
		"host.json":           `{"version": "2.0", "extensions": {"queues": {"batchSize": 1, "newBatchThreshold": 1, "maxDequeueCount": 7}}}`,
		"local.settings.json": `{"Values": {"A": "settings", "AzureFunctionsJobHost__extensions__queues__batchSize": "2", "AzureFunctionsJobHost:extensions:queues:newBatchThreshold": "2"}}`,
	}, "A=environment", "AzureFunctionsJobHost__Extensions__Queues__BatchSize=3")
	if got, from, _ := a.Settings.Lookup("A"); got != "environment" || from != "environment" {
		t.Errorf("A is %s from %s", got, from)
	}
	if got := a.host.queueConcurrency(); got != 5 {
		t.Errorf("the concurrency is %d; want 3 + 2", got)
	}
	if n, _ := a.host.number("extensions.queues.maxDequeueCount", 5); n != 7 {
		t.Errorf("maxDequeueCount is %d", n)
	}
	if set := a.workerVariables(); set["A"] != "" || set["FUNCTIONS_WORKER_RUNTIME"] != "python" || set["AzureWebJobsScriptRoot"] != configs.Secret(a.Dir) {
		t.Errorf("the workers' variables are %q", set)
	}
}

// The settings of a connection become a connection of the configuration.
func TestConnections(t *testing.T) {
	t.Parallel()
	const bus = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=k"
	for _, test := range []struct {
		name      string
		of        *service
		variables []string
		want      configs.Connection
		err       string
	}{
		{"", &storage, []string{"AzureWebJobsStorage=UseDevelopmentStorage=true"}, configs.Connection{ConnectionString: "UseDevelopmentStorage=true"}, ""},
		{"", &serviceBus, []string{"AzureWebJobsServiceBus=" + bus}, configs.Connection{ConnectionString: bus}, ""},
		{"Storage", &storage, []string{"AzureWebJobsStorage=UseDevelopmentStorage=true"}, configs.Connection{ConnectionString: "UseDevelopmentStorage=true"}, ""},
		{"Bus", &serviceBus, []string{"Bus=" + bus, "AzureWebJobsBus=" + bus + ";TransportType=Amqp"}, configs.Connection{ConnectionString: bus + ";TransportType=Amqp"}, ""},
		{"Bus", &serviceBus, []string{"Bus=", "Bus__fullyQualifiedNamespace=x.servicebus.windows.net"}, configs.Connection{Namespace: "x.servicebus.windows.net"}, ""},
		{"Bus", &serviceBus, []string{"Bus__fullyQualifiedNamespace=x.servicebus.windows.net", "Bus__credential=workloadIdentity", "Bus__tenantId=t"}, configs.Connection{Namespace: "x.servicebus.windows.net", Identity: "workload", TenantID: "t"}, ""},
		{"S", &storage, []string{"S__accountName=contoso"}, configs.Connection{StorageAccount: "contoso"}, ""},
		{"S", &storage, []string{"S__queueServiceUri=https://contoso.queue.core.windows.net/", "S__credential=managedidentity", "S__clientId=c"}, configs.Connection{StorageAccount: "contoso", Identity: "managed", ClientID: "c"}, ""},
		{"S", &storage, []string{"S__serviceUri=https://contoso.queue.core.chinacloudapi.cn"}, configs.Connection{StorageAccount: "contoso", Endpoint: "https://contoso.queue.core.chinacloudapi.cn"}, ""},
		{"S", &storage, []string{"S__queueServiceUri=https://localhost:10001/devstoreaccount1"}, configs.Connection{StorageAccount: "devstoreaccount1", Endpoint: "https://localhost:10001/devstoreaccount1"}, ""},
		{"S", &storage, nil, configs.Connection{}, "no setting S (nor S__queueServiceUri, for an identity)"},
		{"S", &storage, []string{"S__queueServiceUri=http://contoso.queue.core.windows.net"}, configs.Connection{}, "write the https address"},
		{"S", &storage, []string{"S=" + bus}, configs.Connection{}, "S (environment) is not a connection string of a storage account"},
		{"Bus", &serviceBus, []string{"Bus=UseDevelopmentStorage=true"}, configs.Connection{}, "Bus (environment) is not a connection string of Service Bus"},
		{"Bus", &serviceBus, []string{"Bus=@Microsoft.KeyVault(SecretUri=https://v/s)"}, configs.Connection{}, "refers to Key Vault"},
		{"Bus", &serviceBus, []string{"Bus__fullyQualifiedNamespace=x", "Bus__clientSecret=s"}, configs.Connection{}, "Bus__clientSecret is set, but drover does not use it"},
		{"Bus", &serviceBus, []string{"Bus__fullyQualifiedNamespace=x", "Bus__credential=magic"}, configs.Connection{}, `Bus__credential is "magic"`},
	} {
		env, _ := environment(test.variables...)
		got, err := Settings{env: env}.findConnection(test.name, test.of)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v: the error is %v; want %s", test.variables, err, test.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got.Connection, test.want) {
			t.Errorf("%v: %+v, %v; want %+v", test.variables, got.Connection, err, test.want)
		}
	}
}

// Triggers, and their settings in host.json.
func TestTranslation(t *testing.T) {
	t.Parallel()
	files := map[string]string{"host.json": `{"version": "2.0", "functionTimeout": "-1", "extensions": {
		"queues": {"visibilityTimeout": "00:00:10", "maxPollingInterval": "00:00:03"},
		"serviceBus": {"maxConcurrentCalls": 6, "maxConcurrentSessions": 5, "sessionIdleTimeout": "00:00:07", "maxAutoLockRenewalDuration": "00:10:00"}}}`}
	functions := map[string]string{
		"queue":   onItems,
		"topic":   `[{"type": "serviceBusTrigger", "name": "m", "topicName": "%T%", "subscriptionName": "s", "connection": "My.Bus"}, {"type": "queue", "direction": "out", "name": "$return", "queueName": "out"}]`,
		"session": `[{"type": "serviceBusTrigger", "name": "m", "queueName": "steps", "isSessionsEnabled": true, "connection": "My.Bus"}]`,
	}
	tr := translated(t, files, functions, "T=news", "My.Bus=Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=SECRET")
	if len(tr.Errors)+len(tr.Warnings) > 0 {
		t.Fatalf("%v %v", tr.Errors, tr.Warnings)
	}
	if err := tr.Complete("drover.yaml", nil); err != nil {
		t.Fatal(err)
	}
	q := tr.Config.Functions["queue"]
	if s := q.Trigger.StorageQueue; s.Queue != "items" || s.MaxPollInterval.D() != 3*time.Second || s.Encoding != "base64" || s.PoisonQueue != "items-poison" {
		t.Errorf("the queue's trigger is %+v", s)
	}
	if q.Concurrency != 0 || q.Timeout.D() != 24*time.Hour || q.Retry.MaxAttempts != 5 || q.Retry.Initial.D() != 10*time.Second || q.Retry.Max.D() != 10*time.Second || q.Retry.Jitter != 0 {
		t.Errorf("the queue's function is %+v", q)
	}
	if a := q.Handler.Python; a.App != AppName || a.Function != "queue" || a.Azure.Entry != "queue" || len(a.Azure.Bindings) != 1 {
		t.Errorf("its handler is %+v", a)
	}
	topic := tr.Config.Functions["topic"]
	if s := topic.Trigger.ServiceBus; s.Topic != "news" || s.Subscription[0] != "s" || s.Connection != "My-Bus" || s.MaxLockRenewal.D() != 10*time.Minute || s.Sessions {
		t.Errorf("the topic's trigger is %+v", s)
	}
	if topic.Concurrency != 6 || topic.Retry.MaxAttempts != 10 || topic.Retry.Max != 0 {
		t.Errorf("the topic's function is %+v", topic)
	}
	session := tr.Config.Functions["session"]
	if s := session.Trigger.ServiceBus; !s.Sessions || s.MaxSessions != 5 || s.SessionIdle.D() != 7*time.Second || session.Concurrency != 0 {
		t.Errorf("the trigger with sessions is %+v, concurrency %d", s, session.Concurrency)
	}
	if c := tr.Config.Connections; len(c) != 2 || !c["My-Bus"].ServiceBus() || !c["AzureWebJobsStorage"].Storage() {
		t.Errorf("the connections are %v", c)
	}
	var out strings.Builder
	if err := tr.Describe(&out); err != nil || strings.Contains(out.String(), "SECRET") || !strings.Contains(out.String(), "Azure Service Bus at x.servicebus.windows.net (My.Bus, environment)") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// Timers, in the app's time zone.
func TestTimers(t *testing.T) {
	t.Parallel()
	tr := translated(t, nil, map[string]string{
		"own":     `[{"type": "timerTrigger", "name": "t", "schedule": "%S%", "runOnStartup": true, "useMonitor": false}]`,
		"generic": `[{"type": "timerTrigger", "name": "t", "schedule": "00:05:00", "run_on_startup": true}]`,
	}, "S=0 */5 * * * *", "WEBSITE_TIME_ZONE=Europe/Berlin", "TZ=UTC")
	if len(tr.Errors) > 0 {
		t.Fatal(tr.Errors)
	}
	own, generic := tr.Config.Functions["own"], tr.Config.Functions["generic"].Trigger.Timer
	if s := own.Trigger.Timer; s.Schedule != "0 */5 * * * *" || s.Timezone != "Europe/Berlin" || !s.RunOnStartup || s.IsMonitored() || own.Retry.MaxAttempts != 1 {
		t.Errorf("%+v, %+v", s, own.Retry)
	}
	if !generic.RunOnStartup || !generic.IsMonitored() {
		t.Errorf("%+v", generic)
	}
}

// Each way to disable a function. A disabled one needs no connection.
func TestDisabledFunctions(t *testing.T) {
	t.Parallel()
	const elsewhere = `[{"type": "queueTrigger", "name": "msg", "queueName": "items", "connection": "Nowhere"}]`
	for _, test := range []struct{ host, variable, want string }{
		{"", "AzureWebJobs.one.Disabled=true", "disabled by AzureWebJobs.one.Disabled (environment)"},
		{"", "AzureWebJobs__one__Disabled=1", "disabled by AzureWebJobs__one__Disabled (environment)"},
		{"", "AzureWebJobs_one_Disabled=True", "disabled by AzureWebJobs_one_Disabled (environment)"},
		{`{"version": "2.0", "functions": ["other"]}`, "A=", "disabled: functions in host.json does not list it"},
	} {
		files := map[string]string{}
		if test.host != "" {
			files["host.json"] = test.host
		}
		tr := translated(t, files, map[string]string{"one": elsewhere, "other": onItems}, test.variable)
		if _, runs := tr.Config.Functions["one"]; runs || len(tr.Errors) > 0 || tr.Functions[0].Disabled != test.want {
			t.Errorf("%s: %q, %v", test.variable, tr.Functions[0].Disabled, tr.Errors)
		}
		if _, runs := tr.Config.Functions["other"]; !runs {
			t.Errorf("%s: the other function does not run", test.variable)
		}
	}
	tr := translated(t, nil, map[string]string{"one": onItems}, "AzureWebJobs.one.Disabled=false")
	if tr.Functions[0].Disabled != "" {
		t.Error(tr.Functions[0].Disabled)
	}
}

// Each type of binding that drover does not have is named, with an alternative.
func TestUnsupportedBindings(t *testing.T) {
	t.Parallel()
	for _, known := range slices.Concat(alternatives, alternativePrefixes, []alternative{{"fooTrigger", ""}, {"foo", ""}}) {
		bindings := fmt.Sprintf(`[{"type": %q, "direction": "in", "name": "x"}, {"type": "queueTrigger", "name": "m", "queueName": "items"}]`, known.kind)
		if strings.HasSuffix(known.kind, "Trigger") {
			bindings = fmt.Sprintf(`[{"type": %q, "direction": "in", "name": "x", "connection": "Nowhere"}]`, known.kind)
		}
		tr := translated(t, nil, map[string]string{"one": bindings, "two": onItems})
		if len(tr.Errors) > 0 || len(tr.Config.Functions) != 1 || tr.CountUnsupported() != 1 || len(tr.Config.NotRun) != 1 || len(tr.DescribeUnsupported()) != 1 {
			t.Fatalf("%s: %v, %v", known.kind, tr.Errors, tr.Config.NotRun)
		}
		if w := tr.DescribeUnsupported()[0]; !strings.Contains(w, "function one does not run: drover has no binding "+known.kind+" (x): ") || !strings.HasSuffix(w, known.text) {
			t.Errorf("%s: %s", known.kind, w)
		}
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	const host = `{"version": "2.0", "retry": {"strategy": "fixedDelay", "maxRetryCount": -1, "delayInterval": "00:00:03"}}`
	for _, test := range []struct {
		host, retry string
		want        configs.Retry
	}{
		{"", `{"strategy": "fixed_delay", "max_retry_count": "3", "delay_interval": "00:00:01"}`, fixed(4, time.Second)},
		{"", `{"strategy": "fixedDelay", "maxRetryCount": 0, "delayInterval": "00:00:01"}`, fixed(1, time.Second)},
		{"", `{"strategy": "exponential_backoff", "max_retry_count": "5000", "minimum_interval": "00:00:02", "maximum_interval": "2.00:00:00"}`,
			configs.Retry{MaxAttempts: 1000, Initial: configs.Duration(2 * time.Second), Max: configs.Duration(24 * time.Hour), Mode: "hold", Jitter: 0.2}},
		{host, "", fixed(1000, 3*time.Second)},
		{host, "null", fixed(1000, 3*time.Second)}, // as in the index
		{"", "null", fixed(5, 0)},
		{host, `{"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:05"}`, fixed(3, 5*time.Second)},
	} {
		files := map[string]string{"function_app.py": "", "local.settings.json": `{"Values": {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}}`}
		if test.host != "" {
			files["host.json"] = test.host
		}
		index := indexed(map[string]string{"one": onItems})
		index.Functions[0].Retry = json.RawMessage(test.retry)
		tr := read(t, files).Translate(index)
		if got := tr.Config.Functions["one"].Retry; len(tr.Errors) > 0 || got != test.want {
			t.Errorf("%s%s: %+v, %v; want %+v", test.host, test.retry, got, tr.Errors, test.want)
		}
	}
}

// Each key of host.json that drover ignores is reported with a reason, and an unknown key with a
// suggestion.
func TestKeysOfHost(t *testing.T) {
	t.Parallel()
	tr := translated(t, map[string]string{"host.json": `{"version": "2.0", "extension": {"queues": {"batchSize": 1}}, "queues": {"batchSize": 1},
		"extensions": {"queues": {"batchsizes": 1}, "blobs": {"maxDegreeOfParallelism": 4}}, "healthMonitor": {"enabled": true}}`}, map[string]string{"one": onItems})
	all := strings.Join(tr.Warnings, "\n")
	for _, want := range []string{"did you mean extensions.queues.batchSize?", "queues.batchSize is a key of version 1 of host.json; write extensions.queues.batchSize", "host.json has no key extensions.queues.batchsizes; did you mean extensions.queues.batchSize?"} {
		if !strings.Contains(all, want) {
			t.Errorf("the warnings lack %q:\n%s", want, all)
		}
	}
	var out strings.Builder
	if err := tr.Describe(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"4 (host.json:2): not in use", "true (host.json:2): ignored"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the description lacks %q:\n%s", want, out.String())
		}
	}
}

// A function with cardinality many takes batches, within the bounds of host.json.
func TestCardinalityMany(t *testing.T) {
	t.Parallel()
	many := map[string]string{"collect": `[{"type": "serviceBusTrigger", "direction": "IN", "name": "all", "queueName": "readings", "connection": "Bus", "cardinality": "MANY"}]`}
	const bus = "Bus=Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b"
	for _, test := range []struct {
		host string
		want configs.Batch
	}{
		{`{}`, configs.Batch{Size: 1000}},
		{`{"maxMessageBatchSize": 10, "maxBatchWaitTime": "00:00:05", "maxConcurrentCalls": 4}`, configs.Batch{Size: 10}},
		{`{"minMessageBatchSize": 20}`, configs.Batch{Size: 1000, Min: 20, Window: configs.Duration(30 * time.Second)}},
		{`{"maxMessageBatchSize": 10, "minMessageBatchSize": 20, "maxBatchWaitTime": "00:00:05"}`, configs.Batch{Size: 10, Min: 10, Window: configs.Duration(5 * time.Second)}},
	} {
		tr := translated(t, map[string]string{"host.json": `{"version": "2.0", "extensions": {"serviceBus": ` + test.host + `}}`}, many, bus)
		f := tr.Config.Functions["collect"]
		if f.Batch != test.want || f.Concurrency != 0 {
			t.Errorf("%s: %+v, concurrency %d; want %+v", test.host, f.Batch, f.Concurrency, test.want)
		}
		if err := tr.Complete("", nil); err != nil {
			t.Errorf("%s: %v", test.host, err)
		}
	}
	one := map[string]string{"take": strings.Replace(many["collect"], "MANY", "ONE", 1)}
	if f := translated(t, nil, one, bus).Config.Functions["take"]; f.Batch != (configs.Batch{}) {
		t.Errorf("cardinality one: %+v", f.Batch)
	}
}
