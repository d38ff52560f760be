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
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/values"
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

// TestExampleHasEveryKey checks that the example has each key of the types, with its default if
// there is one.
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
		for _, f := range decode.Fields(typ) {
			inner := strings.TrimPrefix(path+"."+f.Name, ".")
			out[inner] = true
			for k := range keysOf(typ.Field(f.Index).Type, inner) {
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
		for _, f := range decode.Fields(typ) {
			value, there := node[f.Name]
			if !there {
				continue
			}
			inner := strings.TrimPrefix(path+"."+f.Name, ".")
			found[inner] = true
			// Other keys are allowed with sessions only if it is true.
			if f.Default != "" && fmt.Sprint(value) != f.Default && fmt.Sprint(value) != f.Zero && f.Name != "sessions" {
				t.Errorf("example.yaml has %s: %v; the default is %s", inner, value, f.Default)
			}
			walk(t, typ.Field(f.Index).Type, value, inner, found)
		}
	}
}

// TestBadFiles compares the errors of each file in testdata with those in its comments, which
// follow "# error: " line by line.
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
	if f.Timeout.D() != 5*time.Minute || f.MaxBody != 0 || f.Retry.MaxAttempts != 5 || f.Prefetch != values.PrefetchAuto {
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
	if _, err := Load("nowhere.yaml", environment()); err == nil || !strings.Contains(err.Error(), "no configuration nowhere.yaml") {
		t.Errorf("%v", err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("# x\n"), readfile.MaxConfig/4+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large, environment()); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "huge"), make([]byte, readfile.MaxValue+1), 0o600); err != nil {
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
		"1MiB": Size(1 << 20), "3kB": Size(3000), "0B": Size(0), "7B": Size(7), "auto": values.PrefetchAuto, "12": Prefetch(12),
	} {
		if got := want.String(); got != text {
			t.Errorf("%v is written %s", text, got)
		}
	}
}

// FuzzParse: any text is rejected or loads; nothing panics.
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
