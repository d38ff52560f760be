package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func environment(pairs ...string) Env {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if n, value, _ := strings.Cut(p, "="); n == name {
				return value, true
			}
		}
		return "", false
	}
}

var examples = []string{"example.yaml", "python.yaml", "cluster.yaml", "go.yaml", "servicebus.yaml"}

func TestExamplesLoad(t *testing.T) {
	for _, file := range examples {
		c, err := Load(file, environment())
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %v", file, c.Warnings)
		}
	}
}

// TestExampleHasEveryKey holds the example to the types: each key is there, and
// its value is the default, where it has one.
func TestExampleHasEveryKey(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	walk(t, reflect.TypeFor[Config](), tree, "", found)
	for path := range keysOf(reflect.TypeFor[Config](), "") {
		if !found[path] {
			t.Errorf("example.yaml lacks %s", path)
		}
	}
}

func keysOf(typ reflect.Type, path string) map[string]bool {
	out := map[string]bool{}
	switch typ.Kind() {
	case reflect.Pointer:
		return keysOf(typ.Elem(), path)
	case reflect.Map, reflect.Slice:
		return keysOf(typ.Elem(), path+".*")
	case reflect.Struct:
		for _, f := range fieldsOf(typ) {
			inner := join(path, f.name)
			out[inner] = true
			for k := range keysOf(typ.Field(f.index).Type, inner) {
				out[k] = true
			}
		}
	}
	return out
}

func walk(t *testing.T, typ reflect.Type, tree any, path string, found map[string]bool) {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct {
		list, ok := tree.([]any)
		if !ok {
			list = []any{tree} // one alone
		}
		for _, item := range list {
			walk(t, typ.Elem(), item, path+".*", found)
		}
		return
	}
	node, _ := tree.(map[string]any)
	switch typ.Kind() {
	case reflect.Map:
		for _, inner := range node {
			walk(t, typ.Elem(), inner, path+".*", found)
		}
	case reflect.Struct:
		for _, f := range fieldsOf(typ) {
			value, there := node[f.name]
			if !there {
				continue
			}
			inner := join(path, f.name)
			found[inner] = true
			// Other keys go with sessions only where it is true.
			if f.def != "" && fmt.Sprint(value) != f.def && f.name != "sessions" {
				t.Errorf("example.yaml has %s: %v; the default is %s", inner, value, f.def)
			}
			walk(t, typ.Field(f.index).Type, value, inner, found)
		}
	}
}

// TestBadFiles holds each file in testdata to the error that stands in its
// comments, line by line behind "# error: ".
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	env := environment("PASSWORD=hunter2", "PYTHON_THREADPOOL_THREAD_COUNT=", "COUNT=many")
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, m := range regexp.MustCompile(`(?m)^# error: ?(.*)$`).FindAllStringSubmatch(string(text), -1) {
				want = append(want, m[1])
			}
			_, err = Load(file, env)
			if err == nil {
				t.Fatal("it loads")
			}
			got := strings.ReplaceAll(err.Error(), file+":", "")
			if got != strings.Join(want, "\n") {
				var lines strings.Builder
				for line := range strings.SplitSeq(got, "\n") {
					fmt.Fprintln(&lines, strings.TrimRight("# error: "+line, " "))
				}
				t.Errorf("the error is\n%s", lines.String())
			}
		})
	}
}

func parse(t *testing.T, text string, env ...string) (*Config, error) {
	t.Helper()
	return Parse("test.yaml", []byte(text), t.TempDir(), environment(env...))
}

const minimal = "functions: {f: {trigger: {nats: {}}, handler: {python: {path: app}}}}\n"

func TestDefaultsAndWhatFollows(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("test.yaml", []byte(minimal), dir, environment())
	if err != nil {
		t.Fatal(err)
	}
	f := c.Functions["f"]
	n := f.Trigger.NATS
	if n.Connection != "embedded" || n.Stream != "f" || n.Consumer != "f" || n.Subject != "f" || !*n.Create || n.DeadLetters != "f-DEAD" || n.AckWait.D() != 30*time.Second {
		t.Errorf("the trigger is %+v", *n)
	}
	if p := f.Handler.Python; p.App != "app" || p.Module != "function_app" || p.Function != "f" {
		t.Errorf("the handler is %+v", *p)
	}
	if a := c.Apps["app"]; a.Dir != filepath.Join(dir, "app") || a.Processes != runtime.GOMAXPROCS(0) || a.Threads != 1 {
		t.Errorf("the app is %+v", a)
	}
	if f.Timeout.D() != 5*time.Minute || f.MaxBody != 0 || f.Retry.MaxAttempts != 5 || f.Prefetch != PrefetchAuto {
		t.Errorf("the function is %+v", f)
	}
	if c.DataDir != filepath.Join(dir, ".drover") || !c.Connections["embedded"].Embedded() {
		t.Errorf("data in %s, connections %v", c.DataDir, c.Connections)
	}
}

func TestASecretFromAFileIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "bus")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const old = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=old"
	put(old + "\n")
	text := "connections:\n  a: {connection_string: \"file:bus\"}\n  b: {connection_string: \"" + old + "\"}\n" +
		"functions: {f: {trigger: {servicebus: {connection: a}}, handler: {go: g}}}\n"
	c, err := Parse("test.yaml", []byte(text), dir, environment())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{old, "new"} {
		if got, err := c.Connections["a"].ReadConnectionString(); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		if got, err := c.Connections["b"].ReadConnectionString(); err != nil || got != old {
			t.Errorf("%q, %v", got, err)
		}
		if i == 0 {
			put("new")
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Connections["a"].ReadConnectionString(); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("%v", err)
	}
}

func TestAProgramsConfigurationIsCompletedAlike(t *testing.T) {
	c := New()
	c.Functions = map[string]Function{"f": {
		Trigger: Trigger{NATS: &NATSTrigger{}},
		Handler: Handler{Python: &PythonHandler{Path: "app"}},
	}}
	for range 2 { // the second time does nothing
		if err := c.Complete(environment()); err != nil {
			t.Fatal(err)
		}
	}
	f := c.Functions["f"]
	if f.Timeout.D() != 5*time.Minute || f.Trigger.NATS.AckWait.D() != 30*time.Second || f.Retry.Jitter != 0.2 {
		t.Errorf("the function is %+v", f)
	}
	bad := New()
	bad.Functions = map[string]Function{"f": {Trigger: Trigger{NATS: &NATSTrigger{Connection: "nowhere"}}, Handler: Handler{Go: "g"}}}
	if err := bad.Complete(environment()); err == nil || !strings.Contains(err.Error(), `functions.f.trigger.nats.connection: there is no connection "nowhere"`) {
		t.Errorf("%v", err)
	}
}

func TestValues(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := `
connections:
  c: {nats: "nats://${HOST}:4222", token: "file:token"}
functions:
  f:
    trigger: {nats: {stream: "${STREAM:-ORDERS}", consumer: "a$$b", create: false}}
    handler: {go: "${FROM_ENV}"}
    concurrency: "${COUNT}"
    timeout: ${TIMEOUT:-7s}
    retry: {jitter: "${JITTER:-0.5}"}
`
	c, err := Parse("test.yaml", []byte(text), dir, environment("HOST=example", "COUNT=17", "FROM_ENV=file:${HOST}"))
	if err != nil {
		t.Fatal(err)
	}
	f := c.Functions["f"]
	if c.Connections["c"].NATS[0] != "nats://example:4222" || f.Trigger.NATS.Stream != "ORDERS" || f.Trigger.NATS.Consumer != "a$b" {
		t.Errorf("%+v %+v", c.Connections["c"].NATS, *f.Trigger.NATS)
	}
	if f.Concurrency != 17 || f.Timeout.D() != 7*time.Second || f.Retry.Jitter != 0.5 {
		t.Errorf("%+v", f)
	}
	if f.Handler.Go != "file:${HOST}" {
		t.Errorf("what came from the environment was looked at again: %q", f.Handler.Go)
	}
	if got := string(c.Connections["c"].Token); got != "s3cret" {
		t.Errorf("the token is %q", got)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	const secret = "hunter2"
	c, err := parse(t, `
connections: {c: {nats: "nats://h:1", user: joe, password: hunter2}}
functions: {f: {trigger: {nats: {}}, handler: {go: g}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Describe(&out); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), string(asJSON), string(asYAML), fmt.Sprintf("%v %+v %#v", c.Connections, c.Connections, c.Connections)} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is printed: %s", text)
		}
	}
	for _, bad := range []string{
		"connections: {c: {nats: 'nats://h:1', passwort: hunter2}}\n" + minimal,
		"connections: {c: {nats: 'nats://h:1', user: joe, password: hunter2, nope: 1}}\n" + minimal,
		"connections: {c: {nats: 'nats://joe:hunter2@h:1'}}\n" + minimal,
		"connections:\n  c:\n    nats: nats://h:1\n    pasword: hunter2\n" + minimal,
	} {
		_, err := parse(t, bad)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	}
}

func TestTheAzureVariables(t *testing.T) {
	c, err := parse(t, minimal, "FUNCTIONS_WORKER_PROCESS_COUNT=12", "PYTHON_THREADPOOL_THREAD_COUNT=7")
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Apps["app"]; a.Processes != 12 || a.Threads != 7 || a.ProcessesFrom != processesVariable || a.ThreadsFrom != threadsVariable {
		t.Errorf("%+v", a)
	}
	c, err = parse(t, "functions: {f: {trigger: {nats: {}}, handler: {python: {path: app, processes: 3}}}}", "FUNCTIONS_WORKER_PROCESS_COUNT=12")
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Apps["app"]; a.Processes != 3 {
		t.Errorf("the file must beat the environment: %+v", a)
	}
	for _, value := range []string{"0", "many", "-1", "5000"} {
		_, err := parse(t, minimal, "PYTHON_THREADPOOL_THREAD_COUNT="+value)
		if err == nil || !strings.Contains(err.Error(), `the environment's PYTHON_THREADPOOL_THREAD_COUNT is "`+value+`"`) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestAppsOfOtherLanguages(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("test.yaml", []byte(`
apps:
  depot: {path: ./depot/index.mjs}
  legacy: {path: ./legacy, command: [./worker, --fast], threads: 3}
  spare: {path: ./spare}
functions:
  a: {trigger: {nats: {}}, handler: {node: {path: app/jobs.js, processes: 2}}}
  b: {trigger: {nats: {}}, handler: {node: {path: ./app, processes: 2, function: default}}}
  c: {trigger: {nats: {}}, handler: {node: {app: depot, module: "@shop/jobs"}}}
  d: {trigger: {nats: {}}, handler: {worker: {app: legacy, module: shelves}}}
  e-f: {trigger: {nats: {}}, handler: {worker: {path: other, command: [ruby, worker.rb]}}}
  g: {trigger: {nats: {}}, handler: {python: {path: ./depot}}} # no business of the entry of that name
`), dir, environment("PYTHON_THREADPOOL_THREAD_COUNT=7", "FUNCTIONS_WORKER_PROCESS_COUNT=12"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Code{
		"a": {Node, "app", "jobs.js", "a"}, "b": {Node, "app", ".", "default"}, "c": {Node, "depot", "@shop/jobs", "c"},
		"d": {Worker, "legacy", "shelves", "d"}, "e-f": {Worker, "other", "", "e-f"}, "g": {Python, "./depot", "function_app", "g"},
	} {
		if got, found := c.Functions[name].Handler.Code(); !found || got != want {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"a": "node a of jobs.js in app app", "b": "node default in app app", "d": "worker d of shelves in app legacy", "e-f": "worker e-f in app other",
	} {
		if got := c.Functions[name].Handler.String(); got != want {
			t.Errorf("%s is described as %s, want %s", name, got, want)
		}
	}
	if a := c.Apps["app"]; a.Language != Node || a.Processes != 2 || a.Threads != 1 {
		t.Errorf("the app is %+v: the variable of Python's threads is not for it", a)
	}
	if a := c.Apps["depot"]; a.Dir != filepath.Join(dir, "depot") || a.DefaultModule != "index.mjs" || a.Processes != 12 {
		t.Errorf("depot is %+v", a)
	}
	if a := c.Apps["legacy"]; a.Language != Worker || a.Command[0] != filepath.Join(dir, "legacy", "worker") || a.Threads != 3 {
		t.Errorf("legacy is %+v", a)
	}
	if a := c.Apps["other"]; !slices.Equal(a.Command, Strings{"ruby", "worker.rb"}) {
		t.Errorf("other is %+v", a)
	}
	if a := c.Apps["spare"]; a.Language != "" {
		t.Errorf("spare is %+v", a)
	}
	if _, found := (Handler{Go: "g"}).Code(); found {
		t.Error("a Go function has code of an app")
	}
}

func TestOneFileOfADirectoryIsAModule(t *testing.T) {
	c, err := parse(t, `
functions:
  f: {trigger: {nats: {}}, handler: {python: {path: app/jobs.py}}}
  g: {trigger: {nats: {}}, handler: {python: {path: app/mail.py}}}
  h: {trigger: {nats: {}}, handler: {python: {path: ./app}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, module := range map[string]string{"f": "jobs", "g": "mail", "h": "function_app"} {
		if p := c.Functions[name].Handler.Python; p.Module != module || p.App != "app" {
			t.Errorf("%s is %+v", name, *p)
		}
	}
	if len(c.Apps) != 1 {
		t.Errorf("%d apps of one directory", len(c.Apps))
	}
}

func TestAListenerForOthersIsWarnedOf(t *testing.T) {
	c, err := parse(t, "connections: {c: {nats: embedded, listen: '0.0.0.0:4222'}}\n"+minimal)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "other machines") {
		t.Errorf("%v", c.Warnings)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	if _, err := Load("nowhere.yaml", environment()); err == nil || !strings.Contains(err.Error(), "there is no configuration nowhere.yaml") {
		t.Errorf("%v", err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("# x\n"), maxConfig/4+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large, environment()); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "huge"), make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Parse("x.yaml", []byte("connections: {c: {nats: 'nats://h:1', token: 'file:huge'}}\n"+minimal), dir, environment())
	var all Errors
	if !errors.As(err, &all) || !strings.Contains(err.Error(), "more than 65536 bytes") {
		t.Errorf("%v", err)
	}
}

func TestWrittenAsRead(t *testing.T) {
	for text, want := range map[string]fmt.Stringer{
		"5m": Duration(5 * time.Minute), "1h": Duration(time.Hour), "1h30m": Duration(90 * time.Minute), "1m1s": Duration(61 * time.Second),
		"1MiB": Size(1 << 20), "3kB": Size(3000), "0B": Size(0), "7B": Size(7), "auto": PrefetchAuto, "12": Prefetch(12),
	} {
		if got := want.String(); got != text {
			t.Errorf("%v is written %s", text, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"trigger", "handler", "timeout", "retry"}
	for word, want := range map[string]string{"triger": "trigger", "Handler": "handler", "tiemout": "timeout", "retries": "retry", "xyzzy": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("nearest to %s is %q, want %q", word, got, want)
		}
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("drover.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("drover.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestSchemaAgreesWithTheLoader(t *testing.T) {
	schema := compileSchema(t)
	validate := func(file string) error {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		asJSON, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	for _, file := range examples {
		if err := validate(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, name := range []string{"unknown-key", "bad-duration", "bad-size", "wrong-type", "no-trigger", "no-functions", "enum", "too-small", "too-large"} {
		if validate("testdata/"+name+".bad.yaml") == nil {
			t.Errorf("the schema takes %s", name)
		}
	}
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"$schema": "https://json-schema.org/draft/2020-12/schema"`, `"description": "the most messages in flight`, `"default": "5m"`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the schema lacks %s", want)
		}
	}
}

// FuzzParse: whatever the text is, it is refused or loads; nothing panics.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	bad, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, bad...) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("fuzz.yaml", text, t.TempDir(), environment())
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}

func TestRecycleInWords(t *testing.T) {
	c, err := parse(t, `
apps: {shop: {path: ., start: template, recycle: {max_invocations: 1000, max_memory: 512MiB, max_age: 24h, max_idle: 1h}}}
functions: {f: {trigger: {nats: {}}, handler: {python: {app: shop}}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Describe(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"forked from a template", "after 1000 invocations, at 512MiB of memory of its own, after 24h, after 1h with nothing to do"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
}

func TestWhatWorkersAreHeldToInWords(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("test.yaml", []byte(`
apps:
  plain: {path: plain}
  held:
    path: held
    user: app
    group: www
    environment: {pass: [], set: {TOKEN: "${TOKEN}"}}
    limits: {memory: 512MiB, cpu: 0.5, processes: 64, open_files: 1000, file_size: 1GiB, address_space: 4GiB, cpu_time: 1h, core: 1MiB}
    sandbox: {profile: strict, read: data, write: [/srv/out], connect: [53, "${PORT}"], unix_sockets: true}
  word: {path: word, sandbox: strict, environment: {pass: PATH}}
  alone: {path: alone, user: app, sandbox: {profile: strict, connect: []}}
  port: {path: port, sandbox: {profile: strict, connect: 443}}
`+minimal), dir, environment("TOKEN=s3cret", "PORT=443"))
	if err != nil {
		t.Fatal(err)
	}
	held := c.Apps["held"]
	if held.Environment.Pass == nil || len(held.Environment.Pass) != 0 || held.Environment.Set["TOKEN"] != "s3cret" || c.Apps["plain"].Environment.Pass != nil {
		t.Errorf("%+v", held.Environment)
	}
	if c.Apps["alone"].Sandbox.Connect == nil || c.Apps["word"].Sandbox.Connect != nil || !reflect.DeepEqual(c.Apps["port"].Sandbox.Connect, Ports{443}) {
		t.Error("no port, all ports and one port are not told apart")
	}
	var out bytes.Buffer
	if err := c.Describe(&out); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` +`).ReplaceAllString(out.String(), " ")
	for _, want := range []string{
		" user app:www\n",
		" limits 512MiB of memory, 0.5 of the processors, 64 processes and threads, 1000 open files, files of 1GiB, 4GiB of address space, 1h of CPU time, core dumps of 1MiB\n",
		" sandbox strict, reads " + dir + "/data, writes /srv/out, connects to TCP ports 53 443, has unix sockets\n",
		" user app\n sandbox strict, connects to no TCP port\n",
		" sandbox strict\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(out.String(), "s3cret") {
		t.Error("it tells a secret")
	}
}
