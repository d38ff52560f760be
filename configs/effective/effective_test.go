package effective

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs"
)

const text = `version: 1
env_file: x.env
connections:
  bus: {connection_string: "${BUS}"}
  here: {nats: embedded}
apps:
  shop: {path: app, threads: 2, sandbox: strict}
defaults: {timeout: 30s, retry: {max_attempts: 3}}
functions:
  orders:
    trigger: {servicebus: {queue: "${QUEUE:-orders}"}}
    handler: {python: {app: shop}}
    concurrency: ${SLOTS}
    output:
      - {nats: {connection: here, subject: "${API_KEY}.x"}}
      - {name: "on", nats: {connection: here, subject: "a.b"}}
  short:
    trigger: {nats: {connection: here}}
    handler: {python: {path: ../other}}
    timeout: 5s
  run:
    trigger: {nats: {connection: here}}
    handler: {exec: {command: [sh, -c, "${SCRIPT}"], environment: {set: {A: "file:secret", B: x}}}}
`

func load(t *testing.T) *configs.Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"x.env": "\nSLOTS=8\nAPI_KEY=s3cret\n", "secret": "s3cret\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{
		"BUS":    "Endpoint=sb://127.0.0.1:5672;SharedAccessKeyName=any;SharedAccessKey=s3cret;UseDevelopmentEmulator=true",
		"SCRIPT": "true", "FUNCTIONS_WORKER_PROCESS_COUNT": "3",
	}
	c, err := configs.Parse("x.yaml", []byte(text), dir, func(name string) (string, bool) { v, found := env[name]; return v, found })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	values := List(load(t))
	for _, want := range []struct{ path, text, from, where string }{
		{"version", "1", FromFile, "x.yaml:1"},
		{"drain", "30s", FromDefault, ""},
		{"log.level", "info", FromDefault, ""},
		{"env_file", "[x.env]", FromFile, "x.yaml:2"},
		{"connections.bus.connection_string", Hidden, FromEnvironment, "$BUS, in x.yaml:4"},
		{"apps.shop.threads", "2", FromFile, "x.yaml:7"},
		{"apps.shop.processes", "3", FromEnvironment, "$FUNCTIONS_WORKER_PROCESS_COUNT"},
		{"apps.shop.coroutines", "512", FromDefault, "auto: measured, at first"},
		{"apps.shop.sandbox.profile", "strict", FromFile, "x.yaml:7"},
		{"apps.../other.path", "../other", FromFile, "x.yaml:19"},
		{"functions.orders.trigger.servicebus.queue", "orders", FromFile, "x.yaml:11"},
		{"functions.orders.concurrency", "8", FromEnvironment, "SLOTS of x.env:2, in x.yaml:13"},
		{"functions.orders.timeout", "30s", FromDefaults, "defaults.timeout, x.yaml:8"},
		{"functions.orders.retry.max_attempts", "3", FromDefaults, "defaults.retry.max_attempts, x.yaml:8"},
		{"functions.orders.retry.initial", "1s", FromDefault, ""},
		{"functions.orders.output[0].nats.subject", Hidden, FromEnvironment, "API_KEY of x.env:3, in x.yaml:15"},
		{"functions.orders.output[1].name", `"on"`, FromFile, "x.yaml:16"},
		{"functions.orders.output[1].nats.subject", "a.b", FromFile, "x.yaml:16"},
		{"functions.short.timeout", "5s", FromFile, "x.yaml:20"},
		{"functions.run.concurrency", "auto", FromDefault, ""},
		{"functions.run.handler.exec.command", `[sh, "-c", "true"]`, FromEnvironment, "$SCRIPT, in x.yaml:23"},
		{"functions.run.handler.exec.environment.set.B", Hidden, FromFile, "x.yaml:23"},
	} {
		i := slices.IndexFunc(values, func(v Value) bool { return v.Path == want.path })
		if i < 0 {
			t.Errorf("%s is missing", want.path)
			continue
		}
		if v := values[i]; v.Text != want.text || v.From != want.from || v.Where != want.where {
			t.Errorf("%s: %s, from %s (%s); want %s, from %s (%s)", v.Path, v.Text, v.From, v.Where, want.text, want.from, want.where)
		}
	}
	for _, v := range values {
		if strings.Contains(v.Text, "s3cret") || strings.HasPrefix(v.Path, "defaults") {
			t.Errorf("%+v", v)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	var all, set strings.Builder
	values := List(load(t))
	if err := WriteText(&all, values); err != nil {
		t.Fatal(err)
	}
	if err := WriteText(&set, WithoutDefaults(values)); err != nil {
		t.Fatal(err)
	}
	const output = `    output:
      - # 0
        nats:
          connection: here                      # x.yaml:15
          subject: ***                          # API_KEY of x.env:3, in x.yaml:15
      - # 1
        name: "on"                              # x.yaml:16
`
	if !strings.Contains(set.String(), output) || !strings.Contains(all.String(), "\ndrain: 30s"+strings.Repeat(" ", 38)+"# default\n") || strings.Contains(set.String(), "# default\n") {
		t.Errorf("all:\n%s\nset:\n%s", all.String(), set.String())
	}
}

// Values of a function app come from host.json, its code or its settings.
func TestOriginsOfAFunctionApp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const host = "{\n  \"version\": \"2.0\",\n  \"functionTimeout\": \"00:01:00\",\n  \"extensions\": {\"queues\": {\n    \"batchSize\": 4, \"other\": [1, {\"a\": 2}]},\n    \"http\": {\"routePrefix\": \"v1\"}}\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "host.json"), []byte(host), 0o600); err != nil {
		t.Fatal(err)
	}
	c := configs.New()
	c.File, c.FunctionApp = dir, []byte("{}")
	c.HTTP.Prefix = "v1"
	c.Apps = map[string]configs.App{"app": {Path: dir}}
	c.Connections = map[string]configs.Connection{"Storage": {StorageAccount: "contoso"}}
	c.Functions = map[string]configs.Function{"f": {Concurrency: 8, Timeout: 60e9, Trigger: configs.Trigger{StorageQueue: &configs.StorageQueueTrigger{Queue: "items"}}}}
	values := List(c)
	for path, want := range map[string]string{
		"functions.f.timeout":                     "functionTimeout in " + dir + "/host.json:3",
		"functions.f.concurrency":                 "extensions.queues.batchSize in " + dir + "/host.json:5",
		"functions.f.trigger.storage_queue.queue": "the code of the function",
		"functions.f.retry.max_attempts":          "the code of the function, or Azure's default",
		"http.prefix":                             "extensions.http.routePrefix in " + dir + "/host.json:6",
		"connections.Storage.storage_account":     "the settings of the app",
		"apps.app.path":                           "the function app",
	} {
		i := slices.IndexFunc(values, func(v Value) bool { return v.Path == path })
		if i < 0 || values[i].From != FromApp || values[i].Where != want {
			t.Errorf("%s: %+v; want %s", path, values[max(i, 0)], want)
		}
	}
	if i := slices.IndexFunc(values, func(v Value) bool { return v.Path == "drain" }); values[i].From != FromDefault {
		t.Errorf("%+v", values[i])
	}
}
