package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs/decode"
)

// A function uses its own values, else the values of defaults, else drover's.
func TestDefaultsForAllFunctions(t *testing.T) {
	t.Parallel()
	c, err := parse(t, `
functions:
  plain: {trigger: {nats: {}}, handler: {go: g}}
  own:
    trigger: {nats: {}}
    handler: {go: g}
    concurrency: 3
    timeout: 9s
    log_level: auto
    retry: {initial: 2s}
  web: {trigger: {http: {}}, handler: {go: g}}
defaults: {concurrency: 7, timeout: 1m, prefetch: 4, max_body: 1MiB, log_level: debug, retry: {max_attempts: 3, jitter: 0}}
`)
	if err != nil {
		t.Fatal(err)
	}
	plain, own, web := c.Functions["plain"], c.Functions["own"], c.Functions["web"]
	if plain.Concurrency != 7 || plain.Timeout.D() != time.Minute || plain.Prefetch != 4 || plain.MaxBody != 1<<20 || plain.LogLevel != "debug" ||
		plain.Retry.MaxAttempts != 3 || plain.Retry.Jitter != 0 || plain.Retry.Initial.D() != time.Second {
		t.Errorf("plain: %+v", plain)
	}
	if own.Concurrency != 3 || own.Timeout.D() != 9*time.Second || own.LogLevel != "auto" || own.Prefetch != 4 || own.Retry.MaxAttempts != 3 || own.Retry.Initial.D() != 2*time.Second {
		t.Errorf("own: %+v", own)
	}
	if web.Retry.MaxAttempts != 1 || web.Timeout.D() != time.Minute {
		t.Errorf("web: %+v", web)
	}
}

// The same rule applies to a configuration made in Go, for values that are not zero.
func TestDefaultsOfAProgram(t *testing.T) {
	t.Parallel()
	c := New()
	c.Defaults = Defaults{Timeout: Duration(time.Minute), Retry: Retry{MaxAttempts: 2}}
	c.Functions = map[string]Function{
		"a": {Trigger: Trigger{NATS: &NATSTrigger{}}, Handler: Handler{Go: "g"}},
		"b": {Trigger: Trigger{NATS: &NATSTrigger{}}, Handler: Handler{Go: "g"}, Timeout: Duration(time.Second), Retry: Retry{Initial: Duration(3 * time.Second)}},
	}
	if err := c.Complete(environment()); err != nil {
		t.Fatal(err)
	}
	a, b := c.Functions["a"], c.Functions["b"]
	if a.Timeout.D() != time.Minute || a.Retry.MaxAttempts != 2 || a.Retry.Max.D() != 5*time.Minute || b.Timeout.D() != time.Second || b.Retry.MaxAttempts != 2 || b.Retry.Initial.D() != 3*time.Second {
		t.Errorf("%+v\n%+v", a, b)
	}
}

// The keys of defaults have the same defaults and bounds as in functions.
func TestDefaultsHaveTheTagsOfFunctions(t *testing.T) {
	t.Parallel()
	own, all := reflect.TypeFor[Function](), reflect.TypeFor[Defaults]()
	for _, f := range decode.Fields(all) {
		field := all.Field(f.Index)
		of, found := own.FieldByName(field.Name)
		if !found || of.Type != field.Type {
			t.Errorf("functions have no %s of this type", field.Name)
			continue
		}
		for _, tag := range []string{"yaml", "default", "zero", "min", "max", "enum"} {
			if field.Tag.Get(tag) != of.Tag.Get(tag) {
				t.Errorf("%s: the tag %s is %q, and %q in Function", field.Name, tag, field.Tag.Get(tag), of.Tag.Get(tag))
			}
		}
	}
}

func TestVariablesOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.env": "ONE=1m\nTWO=two\nTOKEN=s3cret-token-of-16\n", "b.env": "TWO=2\nHOME=elsewhere\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const text = `
functions:
  f: {trigger: {nats: {}}, handler: {exec: {command: [cat]}}, timeout: "${ONE}", concurrency: "${TWO}"}
admin: {listen: "127.0.0.1:1", token: "${TOKEN}"}
env_file: [a.env, b.env]
`
	c, err := Parse("x.yaml", []byte(text), dir, environment("HOME=here", "ONE=2m"))
	if err != nil {
		t.Fatal(err)
	}
	f := c.Functions["f"]
	if f.Timeout.D() != 2*time.Minute || f.Concurrency != 2 || c.Admin.Token != "s3cret-token-of-16" {
		t.Errorf("%+v", f)
	}
	e := f.Handler.Exec.Environment
	got := strings.Join(e.WithFiles([]string{"HOME=here", "ONE=2m"}), " ")
	if got != "HOME=here ONE=2m TOKEN=s3cret-token-of-16 TWO=2" {
		t.Errorf("the environment is %s", got)
	}
	if len(e.Withheld) != 3 { // ONE, TOKEN, TWO
		t.Errorf("withheld: %v", e.Withheld)
	}
}

// A client that cannot read the files connects without their variables.
func TestClientsDoNotNeedVariablesOfFiles(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "drover.yaml")
	if err := os.WriteFile(file, []byte("env_file: gone.env\ndata_dir: here\nfunctions: {f: {timeout: \"${ONE}\"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadClient(t.Context(), file, environment())
	if err != nil || filepath.Base(c.DataDir) != "here" {
		t.Errorf("%v", err)
	}
}
