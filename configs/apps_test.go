package configs

import (
	"bytes"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

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
    sandbox: {profile: strict, read: data, write: [/srv/out], temporary: 10MiB, connect: [53, "${PORT}"], unix_sockets: true, link_local: true}
  word: {path: word, sandbox: strict, environment: {pass: PATH}}
  alone: {path: alone, user: app, sandbox: {profile: strict, connect: []}}
  any: {path: any, sandbox: {profile: strict, connect: any}}
  port: {path: port, sandbox: {profile: strict, connect: 443}}
`+minimal), dir, environment("TOKEN=s3cret", "PORT=443"))
	if err != nil {
		t.Fatal(err)
	}
	held := c.Apps["held"]
	if held.Environment.Pass == nil || len(held.Environment.Pass) != 0 || held.Environment.Set["TOKEN"] != "s3cret" || c.Apps["plain"].Environment.Pass != nil {
		t.Errorf("%+v", held.Environment)
	}
	if c.Apps["alone"].Sandbox.Connect == nil || c.Apps["word"].Sandbox.Connect == nil || len(c.Apps["word"].Sandbox.Connect) > 0 || !c.Apps["any"].Sandbox.Connect.Any() || !reflect.DeepEqual(c.Apps["port"].Sandbox.Connect, Ports{443}) {
		t.Error("no port, all ports and one port are not distinguished")
	}
	var out bytes.Buffer
	if err := c.Describe(&out); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` +`).ReplaceAllString(out.String(), " ")
	for _, want := range []string{
		" user app:www\n",
		" limits 512MiB of memory, 0.5 of the processors, 64 processes and threads, 1000 open files, files of 1GiB, 4GiB of address space, 1h of CPU time, core dumps of 1MiB\n",
		" sandbox strict, reads " + dir + "/data, writes /srv/out, has temporary files of 10MiB, connects to TCP ports 53 443, has unix sockets, reaches link-local addresses\n",
		" user app\n sandbox strict, connects to no TCP port\n",
		" sandbox strict, connects to any TCP port\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(out.String(), "s3cret") {
		t.Error("it prints a secret")
	}
}

// TestAuto checks that the word auto is the same as a missing number.
func TestAuto(t *testing.T) {
	c, err := Parse("test.yaml", []byte("apps: {shop: {path: app, processes: auto, threads: auto, coroutines: auto}}\nfunctions: {f: {trigger: {nats: {}}, handler: {python: {app: shop}}, concurrency: auto}}\n"), t.TempDir(), environment())
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Apps["shop"]; !a.Scaled || !a.AutoThreads || !a.AutoCoroutines || a.Coroutines != firstCoroutines || c.Functions["f"].Concurrency != 0 {
		t.Errorf("%+v, concurrency %d", a, c.Functions["f"].Concurrency)
	}
}
