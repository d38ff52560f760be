package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

const examplesFile = "testdata/examples.md"

// notRun are the examples of the help texts and documents that testdata/examples.md does not run, and the reasons.
var notRun = map[string]string{
	"drover demo":                           "it sends messages for 20 seconds; TestDemo runs a shorter one",
	"drover demo --scale":                   "it sends messages for a minute; TestTheScaleDemo runs a shorter one",
	"drover demo --messages 100000 --plain": "it takes all cores for some seconds; TestDemo runs it with 300 messages",
	"drover emulate servicebus --queue orders --subscription events/billing":                              "it listens on a fixed port; TestEmulateServiceBus runs it on another one",
	"drover emulate storagequeue --queue images":                                                          "it listens on a fixed port; TestEmulateStorageQueue runs it on another one",
	"drover tune orders --messages orders.jsonl --html orders.html":                                       "it measures for two minutes; TestTuneSleeping runs a shorter one",
	"drover tune orders --messages orders.jsonl --for 30s --processes 1,2 --threads 1,8,32 --yes --write": "it measures for 30 seconds; TestTuneWrites runs a shorter one",
	"drover emulate servicebus --queue orders --session-queue carts --subscription events/billing":        "it listens on a fixed port; TestEmulateServiceBus runs it on another one",
	"drover emulate storagequeue --queue orders":                                                          "it listens on a fixed port; TestEmulateStorageQueue runs it on another one",
	"drover worker test --app ./conformance --module conformance -- ./my-worker --quiet":                  "it takes a minute; TestWorkerTestOfAWorkerThatFails tests another worker",
	"systemctl enable --now drover":                                                                       "it needs systemd as root",
	"systemctl status drover":                                                                             "it needs systemd as root",
	"drover status --watch --every 10s":                                                                   "it prints until it is stopped; TestStatusWatch stops it",
	"drover worker test python":                                                                           "it takes a minute; the tests of handlers/python run the same checks",
	"drover worker test node":                                                                             "it takes a minute; the tests of handlers/node run the same checks",
	"drover worker test --app ./conformance -- ./my-worker --quiet":                                       "it takes a minute; TestWorkerTestOfAWorkerThatFails tests another worker",
	"python3 -m pip install drover_functions-*.whl":                                                       "it installs a package for the user; docs/python.md installs it into an environment",
	"MYPYPATH=typings mypy app":                                                                           "it needs mypy; TestWorkerTypings runs mypy on the same files",
	"drover check ./my-function-app":                                                                      "it needs azure-functions; TestCheckOfModelV2 reads an app",
	"drover run ./my-function-app":                                                                        "it needs azure-functions; TestRunQueueChain runs an app",
	"drover emulate servicebus --queue orders":                                                            "it listens on a fixed port; TestEmulateServiceBus runs it on another one",
	"drover emulate storagequeue":                                                                         "it listens on a fixed port; TestEmulateStorageQueue runs it on another one",
	"drover check ./my-function-app --strict":                                                             "it needs azure-functions; TestCheckOfModelV2 reads an app",
	"drover check drover.yaml --load":                                                                     "it starts the apps; TestCheckLoads runs it",
	"drover dead show orders orders:42":                                                                   "it needs a message with this ID; the tests of daemon/cli/deadletter show one by its message",
	"drover config show orders.yaml --set":                                                                "it needs this file; TestCommandsThatOnlyPrint runs it on another one",
	"drover config show /etc/drover/orders.yaml --set":                                                    "it needs this file; TestCommandsThatOnlyPrint runs it on another one",
	"drover init --from-azure ./my-function-app":                                                          "it needs azure-functions; TestInitFromAzure runs it",
	"drover run --watch":                                                                                  "it runs until it is stopped; TestRunWatch runs it",
	"drover invoke orders --file order.json --debug":                                                      "it needs a terminal; the page docs/debugging.md and TestDebugPython run it in one",
	"drover invoke total --file order.json --debug":                                                       "it needs a terminal; TestDebugNode runs it in one",
	"PYTHONBREAKPOINT=shop_debug.attach drover invoke total --file order.json --debug":                    "it needs debugpy and an editor; TestDebugPython debugs with pdb",
	"drover replay 17":                                                                                    "it needs a dead letter with this ID; TestReplayInADebugger runs it",
	"drover replay 17 --debug":                                                                            "it needs a terminal; the page docs/debugging.md and TestReplayInADebugger run it in one",
	"drover replay orders:42 --debug":                                                                     "it needs a terminal; TestReplayInADebugger runs it in one",
	"drover profile orders":                                                                               "it samples for ten seconds; TestProfileCommand runs a shorter one",
	"drover profile orders --for 1m --output slow.svg":                                                    "it samples for a minute; TestProfileCommand runs a shorter one",
	"drover profile orders --for 30s":                                                                     "it samples for half a minute; TestProfileCommand runs a shorter one",
	"source <(drover completion zsh)":                                                                     "it needs zsh; TestCompletionInZsh runs the script",
}

// TestExamples runs the sections of testdata/examples.md and compares the output.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(name); err != nil && os.Getenv("CI") != "true" {
			t.Skipf("%s is not here: apt-get install %s", name, name)
		}
	}
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range strings.Split(examplesText(t), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			runPage(t, program, text)
		})
	}
}

func examplesText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(examplesFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var shellComment = regexp.MustCompile(`\s+#.*`)

// exampleOf returns a line without its comment.
func exampleOf(line string) string {
	return strings.TrimSpace(shellComment.ReplaceAllString(line, ""))
}

// examplesOf returns the command lines in the examples of a command's help.
func examplesOf(c *kong.Node) (lines []string) {
	_, block, _ := strings.Cut(c.Detail, "Example")
	for line := range strings.Lines(block) {
		if line, is := strings.CutPrefix(line, "    "); is {
			lines = append(lines, exampleOf(line))
		}
	}
	return lines
}

var testName = regexp.MustCompile(`\bTest\w+`)

// testNames returns the names of the tests of this package.
func testNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declaredTest.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names
}

var declaredTest = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// TestEveryExampleRuns checks that TestExamples runs the examples of all help texts and documents.
func TestEveryExampleRuns(t *testing.T) {
	t.Parallel()
	var run, all []string
	for line := range strings.Lines(examplesText(t)) {
		if line, is := strings.CutPrefix(line, "$ "); is {
			run = append(run, strings.TrimSuffix(strings.TrimSpace(line), " &"))
		}
	}
	check := func(place, line string) {
		t.Helper()
		all = append(all, line)
		if isRun := slices.Contains(run, line); isRun == (notRun[line] != "") {
			t.Errorf("%s: %s must be run in %s, or be in notRun with a reason: one of the two", place, line, examplesFile)
		}
	}
	for _, c := range testParser(t).Model.Leaves(true) {
		for _, line := range examplesOf(c) {
			check("drover help "+c.Path(), line)
		}
	}
	for file, text := range documents(t) {
		for _, block := range shBlock.FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(block[1]) {
				if _, calls := droverArgs(line); !calls {
					continue
				}
				check(file, strings.TrimSuffix(exampleOf(line), " &"))
			}
		}
	}
	tests := testNames(t)
	for line, reason := range notRun {
		if !slices.Contains(all, line) {
			t.Errorf("%s is in notRun, and in no help text or document", line)
		}
		if name := testName.FindString(reason); name != "" && !slices.Contains(tests, name) {
			t.Errorf("the reason not to run %s names %s, which is not a test here", line, name)
		}
	}
	if len(all) < 50 {
		t.Errorf("only %d examples found", len(all))
	}
}
