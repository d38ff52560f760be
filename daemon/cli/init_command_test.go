package cli

import (
	"go/format"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// project creates a new project, and checks what all projects have in common.
func project(t *testing.T, kind string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "a project")
	status, out, errs := command(t.Context(), nil, nil, "init", kind, dir)
	if status != ExitOK {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	_, next, _ := strings.Cut(out, "\nNext:\n")
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for line := range strings.Lines(next + strings.Join(shBlock.FindStringSubmatch(string(readme))[1:], "")) {
		args, found := droverArgs(strings.Replace(line, "./orders", "drover", 1))
		if !found {
			continue
		}
		calls++
		if _, err := parses(t, args); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if calls < 5 || !strings.Contains(next, "cd '"+dir+"'\n") {
		t.Errorf("%d commands are named in\n%s\n%s", calls, next, readme)
	}
	file := map[string]string{"azure": "host.json", "go": "main.go"}[kind]
	if file == "" {
		file = "drover.yaml"
	}
	for _, name := range []string{file, ".gitignore", "order.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if file != "drover.yaml" {
		return dir // its test checks the configuration
	}
	checkSchemaLine(t, dir)
	status, out, errs = command(t.Context(), nil, nil, "check", filepath.Join(dir, file))
	if status != ExitOK || !strings.Contains(out, "function orders") || strings.Contains(out, "warning") {
		t.Errorf("drover check: status %d\n%s%s", status, out, errs)
	}
	return dir
}

// handles runs a configuration, sends the project's message, and waits until a text is logged.
func handles(t *testing.T, file, want string) {
	t.Helper()
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, `"msg":"running"`)
	status, _, errs := command(t.Context(), nil, nil, "send", "orders", "-c", file, "--file", filepath.Join(filepath.Dir(file), "order.json"))
	if status != ExitOK {
		t.Fatalf("drover send: status %d\n%s", status, errs)
	}
	out.WaitFor(t, want)
	if status := stop(); status != ExitOK {
		t.Errorf("drover run: status %d\n%s", status, out)
	}
}

// runIn runs a program in a directory.
func runIn(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestInitPython(t *testing.T) {
	t.Parallel()
	dir := project(t, "python")
	if out := runIn(t, dir, "python3", "-m", "unittest", "discover", "app"); !strings.Contains(out, "Ran 2 tests") {
		t.Errorf("its tests:\n%s", out)
	}
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--file", filepath.Join(dir, "order.json"))
	if status != ExitOK || out != `{"id":7,"total":13}` {
		t.Errorf("status %d, %q\n%s", status, out, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--body", "no JSON")
	if status != ExitFailed || !strings.Contains(errs, "verdict: reject, to the dead letters: the body does not fit Order: it is not JSON: Expecting value") {
		t.Errorf("status %d\n%s", status, errs)
	}
	handles(t, file, "order 7, attempt 1")
}

func TestInitNode(t *testing.T) {
	t.Parallel()
	needNode(t)
	dir := project(t, "node")
	if out := runIn(t, dir, "node", "--test"); !strings.Contains(out, "pass 2") {
		t.Errorf("its tests:\n%s", out)
	}
	file := filepath.Join(dir, "drover.yaml")
	status, out, errs := command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--file", filepath.Join(dir, "order.json"))
	if status != ExitOK || out != `{"id":7,"total":13}` {
		t.Errorf("status %d, %q\n%s", status, out, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--body", "no JSON")
	if status != ExitFailed || !strings.Contains(errs, "verdict: reject, to the dead letters: no JSON: Unexpected token") {
		t.Errorf("status %d\n%s", status, errs)
	}
	handles(t, file, "order 7, attempt 1")
}

func TestInitHTTP(t *testing.T) {
	t.Parallel()
	dir := project(t, "http")
	in, app := io.Pipe()
	cmd := exec.CommandContext(t.Context(), "python3", "app.py", "0")
	cmd.Dir, cmd.Stdout = dir, app
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := newPrinted()
	copied := make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(lines, in) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = app.Close(); <-copied })
	lines.WaitFor(t, "listens on")
	lines.WaitFor(t, "\n")
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(lines.String())
	file := filepath.Join(dir, "drover.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "127.0.0.1:8080", address)), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--file", filepath.Join(dir, "order.json"))
	if status != ExitOK || out != `{"id": 7, "total": 13}` {
		t.Errorf("status %d, %q\n%s", status, out, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "invoke", "orders", "-c", file, "--body", "[1]")
	if status != ExitFailed || !strings.Contains(errs, "verdict: reject") || !strings.Contains(errs, "no order: TypeError") {
		t.Errorf("status %d\n%s", status, errs)
	}
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, `"msg":"running"`)
	if status, _, errs := command(t.Context(), nil, nil, "send", "orders", "-c", file, "--body", `{"id": 8, "lines": []}`); status != ExitOK {
		t.Errorf("drover send: status %d\n%s", status, errs)
	}
	lines.WaitFor(t, "order 8, attempt 1: 0")
	if status := stop(); status != ExitOK {
		t.Errorf("drover run: status %d\n%s", status, log)
	}
}

func TestInitAzureQueues(t *testing.T) {
	dir := project(t, "azure-queues")
	for _, test := range []struct {
		file, env string
		emulate   []string
	}{
		{"drover.yaml", "AzureWebJobsStorage", []string{"storagequeue"}},
		{"servicebus.yaml", "ServiceBusConnection", []string{"servicebus", "--subscription", "orders/billing", "--queue", "receipts"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			out, _ := startCommand(t, append([]string{"emulate"}, append(test.emulate, "--listen", "127.0.0.1:0")...)...)
			at := regexp.MustCompile(`(?m)^(Endpoint=|DefaultEndpointsProtocol=)\S+\n`)
			out.WaitFor(t, "=")
			for at.FindString(out.String()) == "" { // the line may arrive in parts
				out.WaitFor(t, ";")
			}
			t.Setenv(test.env, strings.TrimSpace(at.FindString(out.String())))
			handles(t, filepath.Join(dir, test.file), `receipt: {\"id\":7,\"total\":13}`)
		})
	}
}

func TestInitAzure(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		dir := project(t, "azure")
		status, out, errs := checkApp(t, environment, dir, []string{"--strict"})
		slow := strings.Contains(errs, "is still being imported") // on a busy machine
		if status != ExitOK || strings.Contains(out, "warning") || errs != "" && !slow {
			t.Errorf("drover check: status %d\n%s%s", status, out, errs)
		}
		wantAll(t, "drover check", out, []string{
			"function orders function_app.py:", "trigger queueTrigger msg: storage queue orders on AzureWebJobsStorage", "output queue receipt: storage queue receipts on AzureWebJobsStorage",
			"function submit", "trigger httpTrigger req: POST /api/orders, level anonymous", "function receipts", "function report", "schedule 0 */5 * * * *", "connection AzureWebJobsStorage the storage emulator",
		})
		order, err := os.ReadFile(filepath.Join(dir, "order.json"))
		if err != nil {
			t.Fatal(err)
		}
		url, log, stop := runHTTPApp(t, dir, environment, "AzureWebJobsStorage="+emulatedStorage(t))
		exchange{"POST", "/api/orders", string(order), 202, "", ""}.check(t, url)
		exchange{"POST", "/api/orders", "no JSON", 400, "the body is not JSON", ""}.check(t, url)
		log.WaitFor(t, `receipt: {\"id\": 7, \"total\": 13`)
		if status := stop(); status != ExitOK {
			t.Errorf("drover run: status %d\n%s", status, log)
		}
	})
}

// uncommented returns a drover.yaml with its commented settings in effect.
func uncommented(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if setting.MatchString(line) {
			line = line[1:]
		}
		out.WriteString(line)
	}
	return out.String()
}

// setting matches a commented setting: a key directly after the #, or after an indent of levels of two.
var setting = regexp.MustCompile(`^#(  )*[A-Za-z0-9_-]+:`)

func TestInitFromAzure(t *testing.T) {
	t.Parallel()
	const app = appHead + `
@app.queue_trigger('msg', 'items', 'AzureWebJobsStorage')
@app.retry(strategy='fixed_delay', max_retry_count='3', delay_interval='00:00:07')
def one(msg): pass

@app.timer_trigger('timer', '0 0 2 * * *')
def nightly(timer): pass

@app.route('page')
def page(req): return 'text'

@app.blob_trigger('blob', 'images/{name}', 'AzureWebJobsStorage')
def resize(blob): pass
`
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{"function_app.py": app, "host.json": `{"version": "2.0", "functionTimeout": "00:10:00"}`})
		_, before, _ := checkApp(t, environment, dir, nil)
		status, out, errs := commandFor(t, environment, []string{"init", "--from-azure", dir})
		file := filepath.Join(dir, "drover.yaml")
		if status != ExitOK || !strings.Contains(out, "Written: "+file) {
			t.Fatalf("status %d\n%s%s", status, out, errs)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, "the file", string(text), []string{
			"# function one", "# warning: ", "#functions:", "# one: # storage queue items on AzureWebJobsStorage",
			"#    concurrency: auto", "#    timeout: 10m", "#    retry: {max_attempts: 4, initial: 7s, max: 7s, jitter: 0}", "# nightly: # schedule 0 0 2 * * *", "# resize does not run:",
			"#    threads: auto", "#http:", "#  listen: 127.0.0.1:7071", "#  max_requests: 2000", "# page: # any method /api/page, level function",
		})
		check := func(what string) {
			t.Helper()
			status, out, errs := checkApp(t, environment, dir, nil)
			if status != ExitOK || out != before {
				t.Errorf("%s: status %d, %s\n%s\nwithout the file:\n%s", what, status, errs, out, before)
			}
		}
		check("as it was written")
		if err := os.WriteFile(file, []byte(uncommented(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		check("with all settings in effect")
		if status, _, errs := commandFor(t, environment, []string{"init", "--from-azure", dir}); status != ExitFailed || !strings.Contains(errs, "nothing was written: "+file+" exists already") {
			t.Errorf("a second time: status %d, %s", status, errs)
		}
	})
	const storage = "AzureWebJobsStorage=UseDevelopmentStorage=true"
	dir := customApp(t, `{"defaultExecutablePath": "python3"}`)
	if status, out, errs := commandFor(t, "", []string{"init", "--from-azure", dir}, storage); status != ExitOK {
		t.Fatalf("a custom handler: status %d\n%s%s", status, out, errs)
	}
	file := filepath.Join(dir, "drover.yaml")
	text, err := os.ReadFile(file)
	checkSchemaLine(t, dir)
	if err != nil || strings.Contains(string(text), "threads") || strings.Contains(string(text), "#http:") {
		t.Errorf("the file of a custom handler, %v:\n%s", err, text)
	}
	wantAll(t, "the file of a custom handler", string(text), []string{"# The custom handler.", "#    start_timeout: 2m", "concurrency 64 in flight at most, by default"})
	if err := os.WriteFile(file, []byte(uncommented(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	checkSchemaLine(t, dir)
	if status, out, errs := commandFor(t, "", []string{"check", dir}, storage); status != ExitOK {
		t.Errorf("a custom handler with all settings in effect: status %d\n%s%s", status, out, errs)
	}
	for name, dir := range map[string]string{"nothing": t.TempDir(), "a file": write(t, map[string]string{"host.json": appHost}) + "/host.json"} {
		if status, _, errs := commandFor(t, "", []string{"init", "--from-azure", dir}); status != ExitFailed || !strings.Contains(errs, "is not a directory with a host.json") {
			t.Errorf("%s: status %d, %s", name, status, errs)
		}
	}
}

func TestInitGo(t *testing.T) {
	t.Parallel()
	dir := project(t, "go")
	for _, name := range []string{"main.go", "main_test.go"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(text); err != nil || string(formatted) != string(text) {
			t.Errorf("%s is not as gofmt has it: %v", name, err)
		}
	}
	// The checksums of drover's dependencies come from this repository; a user gets them by go
	// mod tidy.
	sums, err := os.ReadFile("../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, "go", "build", "-mod=mod", "-o", "orders", ".")
	runIn(t, dir, "go", "test", "-mod=mod", ".")
	own := filepath.Join(dir, "orders")
	if out := runIn(t, dir, own, "check"); !strings.Contains(out, "function orders") || !strings.Contains(out, "go orders\n") || strings.Contains(out, "warning") {
		t.Errorf("check:\n%s", out)
	}
	if out := runIn(t, dir, own, "invoke", "orders", "--file", "order.json"); !strings.Contains(out, `{"id":7,"total":13}`) {
		t.Errorf("%s", out)
	}
	cmd := exec.CommandContext(t.Context(), own, "run")
	out := newPrinted()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	out.WaitFor(t, `"msg":"running"`)
	runIn(t, dir, own, "send", "orders", "--file", "order.json")
	out.WaitFor(t, "order 7, attempt 1: 13")
	runIn(t, dir, own, "send", "orders", "--body", "no JSON")
	out.WaitFor(t, "message dead-lettered")
	if out := runIn(t, dir, own, "dead", "list", "orders"); !strings.Contains(out, "the body does not fit main.order") {
		t.Errorf("dead list:\n%s", out)
	}
	if out := runIn(t, dir, own, "status"); !strings.Contains(out, "orders") {
		t.Errorf("status:\n%s", out)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// checkSchemaLine checks that the first line of each configuration of a project names a schema that accepts it.
func checkSchemaLine(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		name, found := strings.CutPrefix(first, "# yaml-language-server: $schema=")
		if !found {
			t.Errorf("%s begins with %q", file, first)
			continue
		}
		schema, err := jsonschema.NewCompiler().Compile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	dir := write(t, map[string]string{"app/function_app.py": "mine", ".gitignore": "mine too"})
	status, out, errs := command(t.Context(), nil, nil, "init", "python", dir)
	if status != ExitFailed || !strings.Contains(errs, "nothing was written") || !strings.Contains(errs, ".gitignore, app/function_app.py already") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "app/function_app.py")); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
	status, _, errs = command(t.Context(), nil, nil, "init", "go", filepath.Join(dir, ".gitignore"))
	if status != ExitFailed || !strings.Contains(errs, "not a directory") {
		t.Errorf("status %d\n%s", status, errs)
	}
	status, _, errs = command(t.Context(), nil, nil, "init", "cobol", dir)
	if status != ExitUsage || !strings.Contains(errs, `must be one of "python","node","go","http","azure","azure-queues"`) {
		t.Errorf("status %d\n%s", status, errs)
	}
}
