package conformance

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRulesAreInTheDocument checks that each checked rule is in the contract.
func TestRulesAreInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/worker-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	document := strings.Join(strings.Fields(string(text)), " ")
	rules := []string{
		driver.RuleSizes, driver.RuleLog, driver.RuleOpen, driver.RuleOne, driver.RuleLogIDs, driver.RuleStats, driver.RuleAlive, driver.RuleImport,
		driver.RuleLogTo, driver.RuleEnds, driver.RuleOutcome, driver.RuleTwice, driver.RulePart, ruleHead,
	}
	for _, c := range allChecks() {
		rules = append(rules, c.rule)
	}
	for _, rule := range rules {
		if rule == "" || !strings.Contains(document, rule) {
			t.Errorf("docs/worker-protocol.md does not say: %q", rule)
		}
	}
}

// TestFunctionsAreInTheDocument checks that the document describes each function of a
// test app.
func TestFunctionsAreInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/worker-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(slices.Clone(functions), sending, streaming, batchFunction) {
		if !strings.Contains(string(text), "\n| `"+f+"` |") {
			t.Errorf("docs/worker-protocol.md does not say what %s does", f)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, name := range CheckNames(Target{}) {
		if seen[name] {
			t.Errorf("two checks are called %s", name)
		}
		seen[name] = true
	}
}

// interpreter returns the path of Python itself: a shim, such as those of pyenv, takes longer to start.
var interpreter = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable, end='')").Output()
	return string(out), err
})

// worker is the worker of testdata, with a fault.
func worker(t *testing.T, fault string) Target {
	t.Helper()
	python, err := interpreter()
	if err != nil {
		t.Fatal(err)
	}
	return Target{
		Command: []string{python, "-I", "-S", "testdata/worker.py", fault}, Env: os.Environ(),
		App: t.TempDir(), Module: Module, Modes: []string{"one", "threads"},
	}
}

func run(t *testing.T, target Target, options Options) map[string]Result {
	t.Helper()
	out := make(map[string]Result)
	if err := Run(t.Context(), target, options, func(r Result) { out[r.Name] = r }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWorkerOfTheDocument checks that a worker that was written only from the document passes all
// checks for its capabilities.
func TestWorkerOfTheDocument(t *testing.T) {
	results := run(t, worker(t, ""), Options{Limit: 2 * time.Minute})
	for name, r := range results {
		if r.Verdict != Passed {
			t.Errorf("%s: %v", name, r)
		}
	}
	if want := len(CheckNames(worker(t, ""))); len(results) != want || want < 80 {
		t.Errorf("%d results of %d checks", len(results), want)
	}
}

// TestFaultsAreFound checks that each named check fails for a worker with the fault.
func TestFaultsAreFound(t *testing.T) {
	for fault, c := range map[string]struct{ check, why string }{
		"answers another call":                {"invoke/echo[one]", "a RESULT of 1, which is not in flight"},
		"answers twice":                       {"invoke/any-id[threads]", "which is not in flight"},
		"swallows failures":                   {"result/failed[one]", "nothing more came within"},
		"ignores DRAIN":                       {"drain/idle[one]", "the worker was still there after"},
		"ends badly":                          {"drain/idle[threads]", "it ended with exit status 7"},
		"stays when the socket closes":        {"close/idle[one]", "the process is still there after"},
		"skips frames of no length":           {"wrong/length-0[one]", "the worker was still there after"},
		"takes any length":                    {"wrong/cancel-too-large", "the worker was still there after"},
		"ignores what it does not know":       {"wrong/unknown-type[one]", "the worker was still there after"},
		"answers for unknown functions":       {"wrong/no-such-function[one]", "a RESULT of 0, which is not in flight"},
		"speaks any protocol":                 {"hello/other-protocol", "the worker was still there after"},
		"speaks another protocol":             {"hello/welcome", "a WELCOME with protocol 1"},
		"takes a read for a frame":            {"invoke/split[one]", ""},
		"loads anything":                      {"load/missing-module", "a READY"},
		"mixes up its functions":              {"load/functions[one]", "function 0 is state, sync"},
		"logs unasked":                        {"hello/nothing-announced[one]", "a LOG, though HELLO did not have the capability log"},
		"logs after its answer":               {"log/ids[one]", "a LOG of 0, which is not in flight"},
		"mixes up its outputs":                {"log/standard-output[one]", ""},
		"measures before it is ready":         {"hello/welcome", "a STATS before READY"},
		"beats before it is ready":            {"hello/welcome", "an ALIVE before READY"},
		"names files unasked":                 {"hello/nothing-announced[one]", "an IMPORTED, though HELLO did not have the capability imports"},
		"names no files":                      {"load/imports", "no IMPORTED before READY"},
		"names files by parts of their paths": {"load/imports", "an IMPORTED of"},
		"beats once":                          {"heartbeat/busy[threads]", ""},
		"measures milliseconds":               {"result/time[one]", "a sleep of 200 ms took"},
		"reads texts as Latin-1":              {"invoke/fields[one]", "the id was"},
		"reads bodies as text":                {"invoke/echo[threads]", "it returned"},
		"sends what is too large":             {"result/largest[one]", "1 to 2097152 are allowed"},
		"sends long errors":                   {"result/large-error[one]", "where 1048576 are the most"},
		"breaks lines of a summary":           {"result/failed[one]", "a summary of several lines"},
		"tries again when it likes":           {"result/retry[one]", "after 60 s"},
		"holds answers back":                  {"result/not-held-back[one]", "nothing more came within"},
		"remembers what it cancelled":         {"cancel/finished[one]", "a RESULT of status 4"},
		"forgets properties":                  {"result/properties[one]", "it returned"},
		"takes properties for attributes":     {"invoke/properties[one]", "the number of attributes was"},
		"has one value of several":            {"invoke/repeated[one]", "the repeated attribute was"},
		"forgets states":                      {"state/set[one]", "a RESULT of status 0"},
		"forgets verdicts":                    {"batch/verdicts[one]", "a RESULT of status 0"},
		"shuffles batches":                    {"batch/many[one]", "the result of message 0 is"},
		"forgets outputs":                     {"outputs/sent[one]", "it sent [] and returned"},
		"shuffles outputs":                    {"outputs/sent[threads]", `it sent ["2" to output 1`},
		"takes any output":                    {"outputs/unknown[one]", "a RESULT of status 0"},
		"drops outputs":                       {"outputs/dropped[one]", "it sent [] and returned"},
		"takes an origin for meta":            {"invoke/origin[one]", ""},
		"ignores CREDIT":                      {"stream/credit[one]", "nothing more came within"},
		"needs no CREDIT":                     {"stream/credit[threads]", "a body of"},
		"repeats its head":                    {"stream/short[one]", "with a head: true"},
		"sends the whole response again":      {"stream/short[threads]", "a RESULT with"},
		"answers a profile twice":             {"profile/twice[one]", "a PROFILED"},
		"ignores SETTINGS":                    {"settings/more[one]", "nothing more came within"},
		"forks once":                          {"template/parent", "is still"},
		"stays in the template's group":       {"template/forks[one]", "is in process group"},
		"keeps the template's outputs":        {"template/files", "file descriptor 1 of the forked worker is another file"},
		"keeps the template's socket":         {"template/files", "is the template's socket"},
		"skips what is not due":               {"template/invoke", "the worker was still there after"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			only := regexp.MustCompile("^" + regexp.QuoteMeta(c.check) + "$")
			var r Result
			for limit := 3 * time.Second; limit < 2*time.Minute; limit *= 4 { // where so little time was too little for the rest, too
				r = run(t, worker(t, fault), Options{Limit: limit, Only: only})[c.check]
				if r.Verdict == Failed && strings.Contains(r.Why, c.why) {
					break
				}
			}
			if r.Verdict != Failed || !strings.Contains(r.Why, c.why) || r.Wanted == "" || r.Rule == "" || len(r.Sent) == 0 {
				t.Errorf("want a failure that says %q, got %v", c.why, r)
			}
		})
	}
}
