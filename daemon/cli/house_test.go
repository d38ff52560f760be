package cli

import (
	"bytes"
	"errors"
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These tests check the structure of the repository: the direction of imports, and that what the
// documents name exists.

const module = "github.com/drover-run/drover"

// mayImport lists, for a folder and those below it, which of drover's folders its code may import.
var mayImport = []struct {
	folder  string
	imports []string
}{
	{"triggers", []string{"triggers"}},
	{"scaler", []string{"scaler"}},
	{"handlers", []string{"handlers", "triggers"}},
	{"configs", []string{"configs", "triggers", "handlers", "scaler"}},
	{"daemon/cli", []string{"daemon", "configs", "handlers", "triggers", "scaler"}},
	{"deploy", nil}, // only tests
	{"bench", []string{"bench", "daemon", "configs", "handlers", "triggers", "scaler", "internal/chart"}},
}

// exactly lists the packages that may import less than their folder may.
var exactly = map[string][]string{
	"triggers":                       {},
	"triggers/memory":                {"triggers"},
	"triggers/lease":                 {"triggers", "triggers/lease/record"},
	"triggers/lease/record":          {},
	"triggers/natsjs":                {"triggers", "triggers/lease/record", "triggers/natsjs/client", "triggers/natsjs/consumers", "triggers/natsjs/convert", "triggers/natsjs/deadletters", "triggers/natsjs/ledger"},
	"triggers/natsjs/client":         {"triggers", "triggers/natsjs/dialer"},
	"triggers/natsjs/consumers":      {"triggers", "triggers/natsjs/convert"},
	"triggers/natsjs/convert":        {"triggers"},
	"triggers/natsjs/deadletters":    {"triggers", "triggers/natsjs/client", "triggers/natsjs/convert"},
	"triggers/natsjs/ledger":         {"triggers", "triggers/natsjs/client"},
	"triggers/natsjs/dialer":         {},
	"triggers/natsjs/embedded":       {},
	"handlers":                       {"triggers"},
	"triggers/servicebus":            {"triggers", "triggers/lease", "triggers/lease/record", "triggers/servicebus/convert", "triggers/servicebus/namespace"},
	"triggers/servicebus/convert":    {"triggers", "triggers/servicebus/wire"},
	"triggers/servicebus/namespace":  {"triggers/servicebus/wire"},
	"triggers/servicebus/wire":       {},
	"triggers/servicebus/emulator":   {"triggers/servicebus/emulator/broker", "triggers/servicebus/emulator/codec"},
	"triggers/storagequeue":          {"triggers", "triggers/lease", "triggers/lease/record", "triggers/storagequeue/reasons"},
	"triggers/storagequeue/reasons":  {},
	"triggers/storagequeue/emulator": {},
	"triggers/timer":                 {"triggers", "triggers/lease", "triggers/timer/schedule"},
	"triggers/natsjs/timerstore":     {"triggers/lease", "triggers/timer"},
	"triggers/timer/schedule":        {},
	"triggers/httptrigger":           {"triggers", "triggers/httptrigger/keys", "triggers/httptrigger/response", "triggers/httptrigger/routes"},
	"triggers/httptrigger/response":  {"triggers"},
	"triggers/httptrigger/keys":      {},
	"triggers/httptrigger/routes":    {},
	"daemon/cli/exit":                {},
	"daemon/cli/about":               {"configs", "daemon", "daemon/internal/buildinfo", "handlers/workers/protocol"},
	"daemon/cli/completion":          {"configs", "daemon/cli/term", "handlers/workers/conformance", "scaler/sim"},
	"daemon/cli/simulate":            {"configs", "scaler/sim"},
	"daemon/cli/functionapps":        {"configs", "daemon/cli/exit", "daemon/cli/invoke", "daemon/cli/term", "daemon/internal/apps", "daemon/internal/program"},
	"daemon/cli/ownprocess":          {},
	"daemon/cli/scaffold":            {},
	"daemon/cli/deadletter":          {"triggers", "daemon/cli/exit", "daemon/cli/live", "daemon/cli/messagefile", "daemon/cli/pairs", "daemon/cli/term"},
	"daemon/cli/pairs":               {},
	"daemon/cli/suggest":             {"configs"},
	"daemon/cli/codecheck":           {"configs", "configs/problems", "daemon/cli/invoke", "daemon/cli/term", "daemon/internal/apps", "handlers/node"},
	"daemon/cli/invoke":              {"configs", "triggers", "handlers", "handlers/workers/protocol", "daemon/internal/apps", "daemon/internal/dispatch", "daemon/internal/sources", "daemon/cli/exit", "daemon/cli/pairs", "daemon/cli/send", "daemon/cli/term"},
	"daemon/internal/watch":          {"configs", "configs/decode", "configs/functionapp", "configs/problems", "configs/readfile", "configs/values", "daemon/internal/api", "daemon/internal/apps", "handlers/interpreters"},
	"configs":                        {"configs/confine", "configs/decode", "configs/posting", "configs/problems", "configs/readfile", "configs/scaling", "configs/servers", "configs/traces", "configs/trust", "configs/values", "triggers/httptrigger/routes", "triggers/timer/schedule"},
	"configs/confine":                {"configs/problems", "configs/values"},
	"configs/decode":                 {"configs/envfile", "configs/problems", "configs/readfile", "configs/values"},
	"configs/effective":              {"configs", "configs/decode", "configs/problems"},
	"configs/envfile":                {"configs/readfile", "configs/trust"},
	"configs/posting":                {"configs/problems", "configs/values", "handlers/httphandler"},
	"configs/problems":               {},
	"configs/functionapp":            {"configs", "configs/decode", "configs/functionapp/custom", "configs/functionapp/hostkeys", "configs/functionapp/httphost", "configs/functionapp/overlay", "configs/posting", "configs/problems", "configs/readfile"},
	"configs/functionapp/hostkeys":   {"configs/problems"},
	"configs/readfile":               {},
	"configs/scaling":                {"configs/decode", "configs/problems", "configs/readfile", "configs/values", "scaler"},
	"configs/servers":                {"configs/problems", "configs/values"},
	"configs/traces":                 {"configs/problems", "configs/values"},
	"configs/trust":                  {},
	"configs/values":                 {},
	"daemon/cli/messagefile":         {"triggers"},
	"daemon/cli/tune":                {"daemon/cli/live", "daemon/cli/term", "internal/chart"},
	"internal/chart":                 {},
	"internal/wheel":                 {},
	"internal/wheel/makewheel":       {"internal/wheel"},
	"internal/release":               {"internal/wheel"},
	"internal/release/makerelease":   {"internal/release"},
	"daemon/cli/tune/measure":        {"triggers", "handlers", "handlers/workers", "configs", "scaler/hostinfo", "daemon/cli/term", "daemon/cli/tune", "daemon/internal/apps", "daemon/internal/autoscale", "daemon/internal/telemetry"},
	"daemon/internal/telemetry":      {},
	"daemon/internal/profiles":       {"configs", "daemon/internal/admin", "daemon/internal/api", "daemon/internal/apps", "daemon/internal/apps/labels", "daemon/internal/instances", "handlers/workers", "handlers/workers/profiling", "handlers/workers/protocol"},
	"daemon/internal/apps/labels":    {"handlers", "triggers"},
	"daemon/cli/profile":             {"daemon/cli/exit", "daemon/cli/profile/flamegraph", "daemon/cli/term", "daemon/internal/api"},
	"daemon/cli/profile/flamegraph":  {"internal/chart"},
	"daemon/internal/admin":          {"configs", "daemon/internal/api", "daemon/internal/telemetry", "daemon/internal/tlsconfig"},
	"daemon/internal/status":         {"configs", "daemon/internal/admin", "daemon/internal/api", "daemon/internal/apps", "daemon/internal/autoscale", "daemon/internal/bodymemory", "daemon/internal/dispatch", "daemon/internal/instances", "daemon/internal/telemetry", "handlers/workers/process", "scaler", "scaler/autotune", "triggers"},
	"daemon/internal/api":            {"daemon/internal/telemetry", "scaler", "scaler/autotune"},
	"daemon/internal/dispatch":       {"triggers", "handlers", "daemon/internal/dispatch/attempts", "daemon/internal/dispatch/batches", "daemon/internal/telemetry"},
	"daemon/drovertest":              {"configs", "daemon", "daemon/internal/dispatch", "daemon/internal/program", "triggers"},
	"daemon/internal/buildinfo":      {},
	"daemon/internal/produce":        {"daemon/internal/admin", "daemon/internal/api", "daemon/internal/dispatch", "daemon/internal/sources", "triggers"},
	"daemon/internal/program":        {"configs", "daemon/internal/dispatch", "daemon/internal/sources", "handlers", "scaler/local", "triggers"},
	"daemon/internal/daemontest":     {},
	"daemon/internal/bodymemory":     {"configs", "scaler/hostinfo", "triggers"},
	"daemon/internal/sources":        {"configs", "triggers", "daemon/internal/dispatch"},
	"daemon/internal/tlsconfig":      {"configs"},
	"daemon/internal/apps":           {"configs", "daemon/internal/api", "daemon/internal/apps/labels", "daemon/internal/dispatch", "daemon/internal/dispatch/batches", "daemon/internal/sources", "daemon/internal/telemetry", "daemon/internal/tlsconfig", "handlers", "scaler/autotune", "scaler/hostinfo", "triggers"},
	"daemon/internal/instances":      {"configs", "daemon/internal/api", "daemon/internal/apps", "daemon/internal/autoscale", "daemon/internal/telemetry", "scaler", "triggers"},
	"daemon/internal/autoscale":      {"configs", "daemon/internal/api", "daemon/internal/apps", "daemon/internal/dispatch", "daemon/internal/telemetry", "handlers", "scaler", "triggers"},
	"daemon/cli/term":                {},
	"daemon/cli/live":                {"daemon/cli/term"},
	"daemon/cli/live/livetest":       {},
	"internal/recording":             {},
	"daemon/cli/dashboard":           {"daemon/cli/deadletter", "daemon/cli/live", "daemon/cli/statustext", "daemon/cli/term", "daemon/internal/api", "triggers"},
	"daemon/cli/statustext":          {"daemon/cli/live", "daemon/cli/term", "daemon/internal/api", "daemon/internal/telemetry"},
	"daemon/cli/emulate":             {"daemon/cli/exit", "triggers/servicebus/emulator", "triggers/storagequeue/emulator"},
	"daemon/cli/send":                {"configs", "daemon/cli/live", "daemon/cli/term", "daemon/internal/dispatch", "daemon/internal/sources", "triggers"},
	"daemon/cli/demo":                {"configs", "daemon", "daemon/cli/live", "daemon/cli/statustext", "daemon/cli/term", "daemon/internal/api", "daemon/internal/sources", "handlers", "triggers"},
	"daemon/cli/typings":             {"daemon/internal/buildinfo", "handlers/node", "handlers/python", "internal/wheel"},
	"scaler":                         {},
	"scaler/sim":                     {"internal/chart", "scaler"},
	"scaler/autotune":                {"scaler/autotune/guard", "scaler/autotune/pool", "scaler/autotune/profile"},
	"scaler/autotune/guard":          {"scaler/autotune/pool"},
	"scaler/autotune/pool":           {},
	"scaler/autotune/profile":        {"scaler/autotune/pool"},
	"scaler/local":                   {"scaler"},
	"scaler/hostinfo":                {},
	".":                              {"daemon/cli"},
	"daemon":                         {"configs", "handlers", "triggers", "scaler", "daemon/internal/admin", "daemon/internal/api", "daemon/internal/apps", "daemon/internal/autoscale", "daemon/internal/bodymemory", "daemon/internal/buildinfo", "daemon/internal/dispatch", "daemon/internal/instances", "daemon/internal/produce", "daemon/internal/profiles", "daemon/internal/program", "daemon/internal/sources", "daemon/internal/status", "daemon/internal/telemetry", "daemon/internal/tlsconfig"},
	"handlers/childproc":             {},
	"handlers/workers":               {"handlers", "triggers", "handlers/sandbox", "handlers/childproc", "handlers/workers/process", "handlers/workers/protocol", "handlers/workers/suspects", "handlers/workers/worker"},
	"handlers/workers/suspects":      {"handlers", "handlers/workers/process", "handlers/workers/worker"},
	"handlers/workers/worker":        {"handlers", "triggers", "handlers/workers/process", "handlers/workers/profiling", "handlers/workers/protocol"},
	"handlers/workers/profiling":     {"handlers/workers/protocol"},
	"handlers/workers/coreshare":     {},
	"handlers/workers/recycle":       {"handlers/workers/process"},
	"handlers/workers/process":       {"handlers/sandbox", "handlers/childproc", "handlers/workers/coreshare"},
	"handlers/workers/protocol":      {"triggers"},
	"handlers/workers/conformance":   {"triggers", "handlers/childproc", "handlers/workers/conformance/driver", "handlers/workers/protocol"},
	"handlers/interpreters":          {},
	"handlers/httphandler":           {"handlers", "triggers"},
	"handlers/commandhandler":        {"handlers", "triggers", "handlers/childproc"},
	"handlers/sandbox":               {"handlers/sandbox/launch", "handlers/sandbox/reach"},
	"handlers/sandbox/reach":         {},
	"handlers/sandbox/launch":        {},

	"triggers/servicebus/emulator/broker": {"triggers/servicebus/emulator/codec"},
	"triggers/servicebus/emulator/codec":  {},

	"daemon/internal/dispatch/attempts": {},
	"daemon/internal/dispatch/batches":  {"triggers", "handlers"},

	"configs/functionapp/custom":   {"configs/decode", "configs/posting"},
	"configs/functionapp/httphost": {"configs", "configs/servers"},
	"configs/functionapp/overlay":  {"configs"},

	"triggers/storagequeue/timerstore": {"triggers/storagequeue", "triggers/timer"},

	"triggers/servicebus/deadletters": {"triggers", "triggers/lease", "triggers/servicebus/convert", "triggers/servicebus/namespace", "triggers/servicebus/wire"},
}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if name := entry.Name(); path != "../.." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		pkg, err := build.ImportDir(path, 0)
		var none *build.NoGoError
		if errors.As(err, &none) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		checkImports(t, filepath.ToSlash(rel), pkg.Imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDaemonLinks checks what a Go program that calls daemon.Run links: all that package daemon
// imports, directly or indirectly.
func TestDaemonLinks(t *testing.T) {
	t.Parallel()
	from := map[string]string{"daemon": ""} // from a linked package to one that imports it
	for queue := []string{"daemon"}; len(queue) > 0; queue = queue[1:] {
		folder := queue[0]
		pkg, err := build.ImportDir(filepath.Join("../..", folder), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, imported := range pkg.Imports {
			ours, found := strings.CutPrefix(imported, module+"/")
			if _, seen := from[ours]; found && !seen {
				from[ours] = folder
				queue = append(queue, ours)
			}
		}
	}
	for folder, importer := range from {
		isTool := slices.Contains([]string{"emulator", "sim", "conformance"}, path.Base(folder))
		if isTool || strings.HasPrefix(folder+"/", "daemon/cli/") {
			t.Errorf("a program that runs a daemon links %s, which %s imports", folder, importer)
		}
	}
	if _, found := from["daemon/internal/sources"]; !found {
		t.Errorf("of all that daemon imports only %d packages are found", len(from))
	}
}

func checkImports(t *testing.T, folder string, imports []string) {
	allowed, known := exactly[folder]
	for _, m := range mayImport {
		if !known && (folder == m.folder || strings.HasPrefix(folder, m.folder+"/")) {
			allowed, known = m.imports, true
		}
	}
	if !known {
		t.Errorf("%s is not in the map of folders; see docs/architecture.md", folder)
		return
	}
	for _, path := range imports {
		ours, found := strings.CutPrefix(path, module+"/")
		if !found {
			continue
		}
		ok := false
		for _, a := range allowed {
			ok = ok || ours == a || !strings.Contains(a, "/") && strings.HasPrefix(ours, a+"/")
		}
		if !ok {
			t.Errorf("%s imports %s; it may import only %v", folder, ours, allowed)
		}
	}
}

func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[file] = string(text)
	}
	if len(out) < 4 {
		t.Fatalf("only %d documents found", len(out))
	}
	return out
}

var (
	link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	// A path of this repository in backquotes: it has a slash, or the extension of a file.
	quoted = regexp.MustCompile("`((?:daemon|triggers|handlers|configs|scaler|deploy|bench|tools|docs)/[A-Za-z0-9_./-]*|[A-Z][A-Za-z]*file|go\\.(?:mod|work)|main\\.go)`")
)

func TestPathsInDocumentsExist(t *testing.T) {
	t.Parallel()
	seen := 0
	for file, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "NAME") { // a placeholder
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
				t.Errorf("%s names %s: %v", file, m[1], err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d paths found: is the pattern still right?", seen)
	}
}

// docs/README.md is the index, with a link to every page.
func TestIndexHasEveryPage(t *testing.T) {
	t.Parallel()
	all := documents(t)
	for file := range all {
		if page := filepath.Base(file); page != "README.md" && !strings.Contains(all["../../docs/README.md"], "]("+page) {
			t.Errorf("docs/README.md does not link %s", page)
		}
	}
}

// commandLines finds the commands in a document's sh blocks and in backquotes.
var (
	shBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	inline  = regexp.MustCompile("`((?:drover|go run|make) [^`]+)`")
)

func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for file, text := range documents(t) {
		var lines []string
		for _, m := range shBlock.FindAllStringSubmatch(text, -1) {
			lines = append(lines, strings.Split(m[1], "\n")...)
		}
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			lines = append(lines, m[1])
		}
		for _, line := range lines {
			line, _, _ = strings.Cut(line, " #")
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			seen++
			args, calls := droverArgs(line)
			switch {
			case words[0] == "make" && len(words) == 2:
				if !bytes.Contains(makefile, []byte("\n"+words[1]+":")) {
					t.Errorf("%s: make has no target %s", file, words[1])
				}
			case calls:
				checkHelp(t, file, args)
			case strings.HasPrefix(line, "go run . "):
				checkHelp(t, file, words[3:])
			case strings.HasPrefix(line, "go run ./bench "):
				bench, err := os.ReadFile("../../bench/main.go")
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(bench, []byte("go run ./bench "+words[3])) {
					t.Errorf("%s: bench has no command %s", file, words[3])
				}
			case words[0] == "go" || words[0] == "tar" || words[0] == "sha256sum" || words[0] == "apt-get" || words[0] == "docker" || words[0] == "systemctl" || words[0] == "curl" || words[0] == "install" || words[0] == "openssl" || words[0] == "pipx":
			case words[0] == "cd" || words[0] == "python3" || strings.HasPrefix(words[0], ".venv/bin/"):
			default:
				t.Errorf("%s has a command that this test does not know how to check: %s", file, line)
			}
		}
	}
	if seen < 7 {
		t.Errorf("only %d commands found: is the pattern still right?", seen)
	}
}

// checkHelp parses a command line of a document without running it: with --help
// behind it, every flag and argument before that is still checked. Behind a -- are
// another program's.
func checkHelp(t *testing.T, file string, args []string) {
	var out bytes.Buffer
	if at := slices.Index(args, "--"); at >= 0 {
		args = args[:at]
	}
	known := Command(t.Context(), append(append([]string{}, args...), "--help"), &IO{
		In: strings.NewReader(""), Out: &out, Err: &out, Env: func(string) (string, bool) { return "", false },
	})
	if known != ExitOK {
		t.Errorf("%s: drover %s: status %d\n%s", file, strings.Join(args, " "), known, out.String())
	}
}
