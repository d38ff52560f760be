package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// reloaded is a directory with a configuration that tests change.
type reloaded struct {
	t    *testing.T
	dir  string
	file string
}

func newReloaded(t *testing.T, config, app string) *reloaded {
	t.Helper()
	dir := write(t, map[string]string{"drover.yaml": config, "app/function_app.py": app})
	return &reloaded{t: t, dir: dir, file: filepath.Join(dir, "drover.yaml")}
}

// write replaces a file in one step: others may be reading it.
func (r *reloaded) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		r.t.Fatal(err)
	}
}

// run runs a command. It checks the exit status, and that the output has all of the texts.
func (r *reloaded) run(status int, command_ string, wants ...string) {
	r.t.Helper()
	got, out, errs := command(r.t.Context(), nil, strings.NewReader(""), append(strings.Fields(command_), "-c", r.file)...)
	if got != status {
		r.t.Errorf("%s: status %d, want %d\n%s%s", command_, got, status, out, errs)
	}
	for _, want := range wants {
		if !strings.Contains(out+errs, want) {
			r.t.Errorf("%s: it does not say %q:\n%s%s", command_, want, out, errs)
		}
	}
}

func (r *reloaded) send(function, body string) {
	r.t.Helper()
	if status, _, errs := command(r.t.Context(), nil, nil, "send", function, "-c", r.file, "--body", body); status != ExitOK {
		r.t.Fatal(errs)
	}
}

const reloadConfig = `
log: {format: text}
functions:
  one:
    trigger: {nats: {}}
    handler: {python: {path: ./app, processes: 1}}
  two:
    trigger: {nats: {}}
    handler: {exec: {command: [sh, -c, "cat >&2"]}}
`

const reloadApp = "def one(body):\n    print('v1', body.decode())\n"

func TestReload(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, reloadConfig, reloadApp)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	r.send("one", "a")
	out.WaitFor(t, "v1 a")
	r.run(ExitOK, "reload", "reloaded: nothing changed; 2 functions continue")

	// One function changes, one is added, one is removed.
	r.write("drover.yaml", strings.Replace(reloadConfig, "two:", "three:", 1)+"    timeout: 7s\n")
	r.run(ExitOK, "reload", "reloaded: added three; removed two; 1 function continues")
	r.write("drover.yaml", strings.Replace(reloadConfig, "two:", "three:", 1)+"    timeout: 8s\n")
	r.run(ExitOK, "reload", "reloaded: changed three; 1 function continues")
	r.run(ExitOK, "status", "one", "three")
	r.send("three", "b")
	r.send("one", "c")
	out.WaitFor(t, "v1 c")

	// The code changes.
	r.write("app/function_app.py", strings.Replace(reloadApp, "v1", "v2", 1))
	r.run(ExitOK, "reload", "reloaded: changed one; 1 function continues")
	r.send("one", "d")
	out.WaitFor(t, "v2 d")

	// A configuration with an error changes nothing, and the error is reported.
	good, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.write("drover.yaml", string(good)+"    tmeout: 8s\n")
	r.run(ExitFailed, "reload", "drover.yaml:11:5", "did you mean timeout?")
	r.write("drover.yaml", string(good)+"    retry: {max_attempts: 3}\n  four:\n    trigger: {nats: {}}\n    handler: {go: nowhere}\n")
	r.run(ExitFailed, "reload", "reload refused; nothing has changed", "function four: this program has no Go function")
	r.write("drover.yaml", string(good))
	r.run(ExitOK, "status", "the reload of ", "was refused: function four")
	r.run(ExitOK, "health", "ok")
	r.send("one", "e")
	out.WaitFor(t, "v2 e")

	// If code does not load, the daemon is not ready, and the earlier functions continue.
	r.write("app/function_app.py", "def one(body): return missing +\n")
	r.run(ExitCode, "reload", "reload refused", "SyntaxError", "function_app.py")
	r.run(ExitFailed, "health", "the last reload was refused because code does not load; the earlier functions keep running")
	r.send("one", "f")
	out.WaitFor(t, "v2 f")
	r.write("app/function_app.py", strings.Replace(reloadApp, "v1", "v3", 1))
	r.run(ExitOK, "reload", "changed one")
	r.run(ExitOK, "health", "ok")
	r.send("one", "g")
	out.WaitFor(t, "v3 g")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	for _, body := range "acdefg" {
		if n := strings.Count(out.String(), " "+string(body)+"\" app="); n != 1 {
			t.Errorf("%c was handled %d times\n%s", body, n, out)
		}
	}
}

// Changed files that no worker has imported restart nothing. When a worker imports one, later
// changes of it do.
func TestReloadOfImports(t *testing.T) {
	t.Parallel()
	needNode(t)
	r := newReloaded(t, `
log: {format: text}
apps: {first: {path: ./app, processes: 1}, second: {path: ./app, processes: 1}}
functions:
  one: {trigger: {nats: {}}, handler: {python: {app: first}}}
  two: {trigger: {nats: {}}, handler: {node: {app: second}}}
`, "def one(body):\n    import late\n    print('one', late.V)\n")
	r.write("app/index.js", "exports.two = () => console.log('two', require('./late').V);\n")
	r.write("app/late.py", "V = 1\n")
	r.write("app/late.js", "exports.V = 1;\n")
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	for _, file := range []string{"test_app.py", "late.py", "late.js", "index.test.js"} {
		r.write("app/"+file, "V = 2\nexports = {}\n")
	}
	r.run(ExitOK, "reload", "reloaded: nothing changed; 2 functions continue")
	out.WaitFor(t, "files changed that no worker has imported; the workers continue")
	out.WaitFor(t, `files="late.py, test_app.py"`)
	out.WaitFor(t, `files="index.test.js, late.js"`)
	r.write("app/late.py", "V = 3\n")
	r.write("app/late.js", "exports.V = 3;\n")
	r.run(ExitOK, "reload", "reloaded: nothing changed; 2 functions continue")
	for _, function := range []string{"one", "two"} {
		r.send(function, "x")
		out.WaitFor(t, function+" 3")
	}
	r.run(ExitOK, "reload", "reloaded: nothing changed; 2 functions continue") // they have loaded the present files
	r.write("app/late.py", "V = \n")
	r.run(ExitOK, "reload", "reloaded: changed one; 1 function continues")
	out.WaitFor(t, "files=late.py")
	r.write("app/late.js", "exports.V = 4;\n")
	r.run(ExitOK, "reload", "reloaded: changed two; 1 function continues")
	r.send("two", "x")
	out.WaitFor(t, "two 4")
	r.send("one", "x")
	out.WaitFor(t, "SyntaxError")
	r.write("app/late.py", "V = 5\n")
	r.run(ExitOK, "reload", "reloaded: changed one; 1 function continues")
	out.WaitFor(t, "one 5") // the message is retried
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestNothingRunsThatCouldReload(t *testing.T) {
	r := newReloaded(t, reloadConfig, reloadApp)
	r.run(ExitFailed, "reload", "no daemon of this configuration is running here")
	cfg, err := configs.Load(r.file, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.New(cfg).Reload(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "it is starting or stopping") {
		t.Errorf("before it runs: %v", err)
	}
}

// goDaemon runs Go functions over an embedded server.
func goDaemon(t *testing.T, r *reloaded, funcs handlers.Funcs) (d *daemon.Daemon, stop func() error) {
	t.Helper()
	cfg := r.load()
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, cancel := context.WithCancel(context.Background())
	d = daemon.New(cfg, daemon.WithFuncs(funcs), daemon.WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(running) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return d, stop
}

func (r *reloaded) load() *configs.Config {
	r.t.Helper()
	cfg, err := configs.Load(r.file, os.LookupEnv)
	if err != nil {
		r.t.Fatal(err)
	}
	return cfg
}

// One function of ten changes repeatedly under load. The other nine are not affected, and no
// message of the tenth is lost, interrupted or handled twice.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	config := func(timeout int) string {
		text := "functions:\n"
		for i := range 10 {
			text += fmt.Sprintf("  f%d: {trigger: {nats: {}}, handler: {go: f}, concurrency: 4", i)
			if i == 0 {
				text += fmt.Sprintf(", timeout: %ds", timeout)
			}
			text += "}\n"
		}
		return text
	}
	r := newReloaded(t, config(100), "")
	var mu sync.Mutex
	seen := make(map[string]int)
	d, stop := goDaemon(t, r, handlers.Funcs{"f": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		seen[m.Subject+" "+string(m.Body)]++
		return nil, nil
	}})
	const messages = 1000
	var sending sync.WaitGroup
	for i := range 10 {
		lines := make([]string, messages)
		for n := range lines {
			lines[n] = strconv.Itoa(n)
		}
		sending.Go(func() {
			if status, _, errs := command(context.Background(), nil, strings.NewReader(strings.Join(lines, "\n")), "send", fmt.Sprint("f", i), "-c", r.file); status != ExitOK {
				t.Error(errs)
			}
		})
	}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == 10*messages
	}
	reloads := 0
	for ; reloads < 5 || !all(); reloads++ {
		r.write("drover.yaml", config(101+reloads))
		changes, err := d.Reload(t.Context(), r.load())
		if err != nil || len(changes.Changed) != 1 || len(changes.Kept) != 9 {
			t.Fatalf("%+v, %v", changes, err)
		}
		if reloads > 10_000 {
			t.Fatal("the messages do not come to an end")
		}
	}
	sending.Wait()
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, s := range d.Status() {
		if s.Done != messages || s.Failed+s.Retried+s.Rejected != 0 || s.Name != "f0" && s.Released != 0 || s.Received != s.Done+s.Released || s.InFlight != 0 {
			t.Errorf("after %d reloads: %+v", reloads, s)
		}
	}
	for what, n := range seen {
		if n != 1 {
			t.Errorf("%s was handled %d times", what, n)
		}
	}
}

// The reload waits for the messages in flight of a function that changes, for the drain time. Then
// they are interrupted, and run again with the new configuration, without using an attempt.
func TestReloadDrainsWhatItReplaces(t *testing.T) {
	t.Parallel()
	config := "drain: 200ms\nfunctions:\n  f: {trigger: {nats: {}}, handler: {go: f}, concurrency: 1, timeout: %s}\n"
	r := newReloaded(t, fmt.Sprintf(config, "1m"), "")
	began, attempts := make(chan struct{}, 10), make(chan int, 10)
	var cut atomic.Bool
	d, stop := goDaemon(t, r, handlers.Funcs{"f": func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		began <- struct{}{}
		if string(m.Body) == "slow" && cut.CompareAndSwap(false, true) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		attempts <- m.Attempt
		return nil, nil
	}})
	r.send("f", "slow")
	<-began
	d.SetPaused(t.Context(), "f", true, time.Now().Add(time.Hour))
	r.write("drover.yaml", fmt.Sprintf(config, "2m"))
	if _, err := d.Reload(t.Context(), r.load()); err != nil {
		t.Fatal(err)
	}
	if !d.Status()[0].Paused {
		t.Error("the function that follows is not paused")
	}
	if !d.SetPaused(t.Context(), "f", false, time.Time{}) {
		t.Error("it cannot be resumed")
	}
	if attempt := <-attempts; attempt != 1 {
		t.Errorf("it was charged: attempt %d", attempt)
	}
	until(t, newPrinted(), "the message is done", func() bool { return d.Status()[0].Done == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if s := d.Status()[0]; s.Received != 2 || s.Done != 1 || s.Released != 1 {
		t.Errorf("%+v", s)
	}
}

// A stop does not wait for code that is being loaded.
func TestAStopEndsAReload(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, reloadConfig, reloadApp)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	r.write("app/function_app.py", "import sys, time\nprint('loading', file=sys.stderr)\ntime.sleep(3600)\n")
	refused := make(chan string, 1)
	go func() {
		_, text, errs := command(context.Background(), nil, nil, "reload", "-c", r.file)
		refused <- text + errs
	}()
	out.WaitFor(t, "loading")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	if text := <-refused; !strings.Contains(text, "drover: ") {
		t.Errorf("the reload says %q", text)
	}
}

func TestHangUpsReload(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, reloadConfig, reloadApp)
	cmd, out, ended := child(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	r.write("drover.yaml", strings.Replace(reloadConfig, "log: {", "log: {level: debug, ", 1)+"    timeout: 8s\n")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	out.WaitFor(t, "msg=reloaded")
	r.send("one", "a")
	out.WaitFor(t, "level=DEBUG msg=done function=one") // as the new level requires
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// Instances are reloaded, and those that start later have the new configuration.
func TestReloadOfInstances(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, fmt.Sprintf(scaledConfig, 2), "def work(body):\n    print('v1', body.decode())\n")
	cmd, out, ended := child(t, "run", r.file)
	until(t, out, "two instances", func() bool { return len(pids(t, out)) == 2 })
	r.write("app/function_app.py", "def work(body): return missing +\n")
	r.run(ExitCode, "reload", "reload refused", "SyntaxError")
	r.run(ExitOK, "status", "was refused")
	r.write("app/function_app.py", "def work(body):\n    print('v2', body.decode())\n")
	r.run(ExitOK, "reload", "reloaded: changed work")
	for i := range 20 {
		r.send("work", fmt.Sprintf("m%d.", i))
	}
	for i := range 20 {
		out.WaitFor(t, fmt.Sprintf("v2 m%d.", i))
	}
	if err := syscall.Kill(pids(t, out)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, out, "a third instance", func() bool { return len(pids(t, out)) == 3 })
	r.send("work", "last.")
	out.WaitFor(t, "v2 last.")
	if strings.Contains(out.String(), "v1 ") {
		t.Errorf("old code has run:\n%s", out)
	}
	r.write("drover.yaml", strings.Replace(fmt.Sprintf(scaledConfig, 2), "max: 3", "max: 2", 1)+"  more:\n    trigger: {nats: {}}\n    handler: {exec: {command: [sh, -c, 'cat >&2']}}\n")
	r.run(ExitOK, "reload", "added more")
	until(t, out, "the new function is there", func() bool {
		_, text, _ := command(t.Context(), nil, nil, "status", "-c", r.file)
		return strings.Contains(text, "more")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// A daemon waits for a store that a command has locked for a moment.
func TestAStartWaitsForTheStore(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, reloadConfig, reloadApp)
	cfg := r.load()
	server, err := sources.StartServer(t.Context(), sources.Config{Settings: cfg, Log: slog.New(slog.DiscardHandler)}, "embedded")
	if err != nil {
		t.Fatal(err)
	}
	out, stop := startCommand(t, "run", r.file)
	until(t, out, "the daemon has its socket", func() bool { _, err := os.Stat(admin.SocketPath(cfg.DataDir)); return err == nil })
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	out.WaitFor(t, "msg=running")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
