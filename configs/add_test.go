package configs

import (
	"strings"
	"testing"
)

const fileForPrograms = `version: 1
connections: {main: {nats: "nats://127.0.0.1:4222"}}
apps: {mine: {path: ./app}}
functions: {}
`

func parseForPrograms(t *testing.T) *Config {
	t.Helper()
	c, err := Parse("drover.yaml", []byte(fileForPrograms), t.TempDir(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddFunctions(t *testing.T) {
	t.Parallel()
	noEnv := func(string) (string, bool) { return "", false }
	nats := Trigger{NATS: &NATSTrigger{}}
	for _, test := range []struct {
		want      string
		functions map[string]Function
	}{
		{"drover.yaml:4:12: functions: it is empty; add at least one function", nil},
		{"function f, which the program adds, uses app mine of the configuration: set path instead", map[string]Function{"f": {Trigger: nats, Handler: Handler{Python: &PythonHandler{App: "mine"}}}}},
		{`functions: the name "a.b" has a dot or a slash`, map[string]Function{"a.b": {Trigger: nats, Handler: Handler{Go: "g"}}}},
		{"functions.f.handler.python.module", map[string]Function{"f": {Trigger: nats, Handler: Handler{Python: &PythonHandler{Path: "./app", Module: "a b"}}}}},
		{"functions.f.handler: it has both go and exec", map[string]Function{"f": {Trigger: nats, Handler: Handler{Go: "g", Exec: &ExecHandler{Command: Strings{"true"}}}}}},
	} {
		if err := parseForPrograms(t).AddFunctions(noEnv, test.functions); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want %s", err, test.want)
		}
	}

	c := parseForPrograms(t)
	trigger := &NATSTrigger{}
	functions := map[string]Function{
		"code": {Trigger: nats, Handler: Handler{Python: &PythonHandler{Path: "./app", Processes: 2}}},
		"own":  {Trigger: Trigger{Program: true}, Handler: Handler{Go: "own"}},
		"http": {Trigger: Trigger{HTTP: &HTTPTrigger{}}, Handler: Handler{Go: "h"}},
		"jobs": {Trigger: Trigger{NATS: trigger}, Handler: Handler{Go: "g"}},
	}
	for range 2 { // the second call adds nothing
		if err := c.AddFunctions(noEnv, functions); err != nil {
			t.Fatal(err)
		}
	}
	if f := c.Functions["jobs"]; f.Trigger.NATS.Stream != "jobs" || f.Trigger.NATS.Connection != "main" || f.Retry.MaxAttempts != 5 || f.Timeout.String() != "5m" || trigger.Stream != "" {
		t.Errorf("%+v, %+v; of the program: %+v", f, f.Trigger.NATS, trigger)
	}
	if app := c.Apps[c.Functions["code"].Handler.Python.App]; app.Language != Python || app.Processes != 2 {
		t.Errorf("the app of a path: %+v", app)
	}
	if text := c.Functions["own"].Trigger.String(); text != "a trigger of the program" || c.Functions["http"].Retry.MaxAttempts != 1 {
		t.Errorf("%s, %+v", text, c.Functions["http"].Retry)
	}

	made := New()
	made.Functions = map[string]Function{"f": {Trigger: nats, Handler: Handler{Go: "g"}}}
	if err := made.AddFunctions(noEnv, map[string]Function{"g": {Trigger: nats, Handler: Handler{Go: "g"}}}); err != nil || len(made.Functions) != 2 {
		t.Errorf("a configuration of a program: %v, %v", err, made.Functions)
	}
}
