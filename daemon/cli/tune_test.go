package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/daemon/cli/tune"
)

const tuneApp = `
import asyncio, os, threading, time
def work(message):
    n = sum(i * i for i in range(20000))
class Crowd: # notes how many calls ran at once, at most
    inside, most, guard = 0, 0, threading.Lock()
    def __enter__(self):
        with self.guard:
            self.inside += 1
            if self.inside > self.most:
                self.most = self.inside
                with open("most", "a") as f: f.write(f"{self.most}\n")
    def __exit__(self, *_):
        with self.guard: self.inside -= 1
crowd = Crowd()
def rest(message):
    with crowd: time.sleep(0.03)
async def rest_async(message):
    with crowd: await asyncio.sleep(0.03)
def some(message):
    if message.text() == "b": raise ValueError("no b")
def none(message):
    raise ValueError("no luck \x1b[2J")
def forever(message):
    time.sleep(600)
def noted(message):
    with open("pids", "a") as f: f.write(str(os.getpid()) + "\n")
    time.sleep(0.02)
    return "a result"
`

const tuneConfigText = `# ours
connections:
  own: {nats: embedded}
  cluster: {nats: "nats://127.0.0.1:9"} # nobody there
apps:
  app:
    path: ./app   # the code
    kill_grace: 2s
functions: # all of them
  work: {trigger: {nats: {connection: cluster}}, handler: {python: {app: app}}}
  rest: {trigger: {nats: {connection: own}}, handler: {python: {app: app}}, concurrency: 64}
  rest_async: {trigger: {nats: {connection: own}}, handler: {python: {app: app}}}
  some: {trigger: {nats: {connection: own}}, handler: {python: {app: app}}}
  none: {trigger: {nats: {connection: own}}, handler: {python: {app: app}}}
  forever: {trigger: {nats: {connection: own}}, handler: {python: {app: app}}}
  noted: {trigger: {nats: {connection: own}}, handler: {python: {app: app}}, output: {nats: {subject: results, connection: own}}}
  broken: {trigger: {nats: {connection: own}}, handler: {python: {path: ./broken}}}
  gofunc: {trigger: {nats: {connection: own}}, handler: {go: gofunc}}
  web: {trigger: {nats: {connection: own}}, handler: {http: {url: "http://127.0.0.1:9"}}}
  node: {trigger: {nats: {connection: own}}, handler: {node: {path: ./node}}}
`

// tuneDir creates a directory with a configuration and messages. Its tests wait for the clock more
// than for the CPU, so they can run in parallel.
func tuneDir(t *testing.T) (dir string) {
	t.Helper()
	t.Parallel()
	return write(t, map[string]string{
		"drover.yaml": tuneConfigText, "app/function_app.py": tuneApp, "broken/function_app.py": "import nonexistent_pkg\ndef broken(body): pass\n",
		"m.jsonl": `{"body":"a"}` + "\n" + `{"body":"b"}` + "\n", "empty": "", "binary": "\x7fELF\x00\x01", "text": "hello\n", "wrong": "{\"body\":\"a\"}\n{\"bdy\":\"a\"}\n",
		"node/index.js": "exports.node = () => {}\n", "dir/one": "a", "dir/two": "b",
	})
}

// tuneArgs splits a command line of tune; DIR is replaced by the directory.
func tuneArgs(dir, line string) []string {
	if !strings.Contains(line, " -c ") {
		line += " -c DIR/drover.yaml"
	}
	return append([]string{"tune"}, strings.Fields(strings.ReplaceAll(line, "DIR", dir))...)
}

// tuneReport runs tune with --json, and returns its report. If a busy machine leaves no time for
// some cells, or for any, it runs again with twice the time.
func tuneReport(t *testing.T, dir, line string, seconds int) (r tune.Report, errs string) {
	t.Helper()
	for limit := 32 * seconds; ; seconds *= 2 {
		var status int
		var out string
		status, out, errs = command(t.Context(), nil, nil, tuneArgs(dir, fmt.Sprintf("%s --for %ds --yes --json", line, seconds))...)
		if status == ExitFailed && needsMoreTime(errs) && seconds < limit {
			continue
		}
		r = tune.Report{}
		if err := json.Unmarshal([]byte(out), &r); err != nil || status != ExitOK {
			t.Fatalf("status %d, %v\n%s\n%s", status, err, out, errs)
		}
		if len(r.Skipped) == 0 || seconds >= limit {
			return r, errs
		}
		if err := os.Remove(filepath.Join(dir, "r.html")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// needsMoreTime reports whether a run had too little time, as on a busy machine.
func needsMoreTime(errs string) bool {
	return strings.Contains(errs, "is too short") || strings.Contains(errs, "increase --for")
}

// of returns the cell with the settings.
func of(t *testing.T, r tune.Report, s tune.Settings) tune.Cell {
	t.Helper()
	for _, c := range r.Cells {
		if c.Settings == s {
			return c
		}
	}
	t.Fatalf("there is no cell %v in %+v", s, r)
	return tune.Cell{}
}

// mostAtOnce returns how many calls of rest or rest_async ran at once, at most.
func mostAtOnce(t *testing.T, dir string) (most int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "app", "most"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
	}
	return most
}

func TestTuneSleeping(t *testing.T) {
	dir := tuneDir(t)
	file := filepath.Join(dir, "drover.yaml")
	r, errs := tuneReport(t, dir, "rest --messages DIR/m.jsonl --processes 1 --threads 1,8 --html DIR/r.html --coroutines 7", 6)
	one, eight := of(t, r, tune.Settings{Processes: 1, Threads: 1}), of(t, r, tune.Settings{Processes: 1, Threads: 8})
	if one.Calls == 0 || one.Failed != 0 || one.P50 < 0.025 || eight.Calls == 0 || mostAtOnce(t, dir) != 8 {
		t.Errorf("with one thread %+v, with eight %+v", one, eight)
	}
	if r.Best == nil || r.Best.Throughput < max(one.Throughput, eight.Throughput) || r.Async || r.Stopped || !strings.Contains(strings.Join(r.Notes, "\n"), "--coroutines applies only to async functions") ||
		!strings.Contains(strings.Join(r.Notes, "\n"), "concurrency in the configuration limits it to 64") || !strings.Contains(strings.Join(r.Notes, "\n"), "so also to forever, ") {
		t.Errorf("%+v", r)
	}
	page, err := os.ReadFile(filepath.Join(dir, "r.html"))
	if err != nil || !strings.Contains(string(page), "<svg") || !strings.Contains(errs, "r.html") {
		t.Errorf("%v\n%s", err, errs)
	}
	if text, _ := os.ReadFile(file); string(text) != tuneConfigText {
		t.Errorf("without --write the configuration became\n%s", text)
	}
}

func TestTuneAsync(t *testing.T) {
	dir := tuneDir(t)
	r, _ := tuneReport(t, dir, "rest_async --messages DIR/dir --processes 1 --threads 4 --coroutines 1,16", 6)
	threads := r.Cells[0].Threads
	one, more := of(t, r, tune.Settings{Processes: 1, Threads: threads, Coroutines: 1}), of(t, r, tune.Settings{Processes: 1, Threads: threads, Coroutines: 16})
	if n := mostAtOnce(t, dir); n < 8 {
		t.Errorf("with 16 coroutines at most %d calls ran at once", n)
	}
	if !r.Async || one.Calls == 0 || more.Calls == 0 || r.Messages != "2 messages of "+filepath.Join(dir, "dir") {
		t.Errorf("one coroutine %+v, 16 coroutines %+v\n%+v", one, more, r)
	}
}

// The tool chooses the grid; the settings are written, and nothing else in the file changes.
func TestTuneWrites(t *testing.T) {
	dir := tuneDir(t)
	file := filepath.Join(dir, "drover.yaml")
	if err := os.Chmod(file, 0o644); err != nil { // another mode than that of a temporary file
		t.Fatal(err)
	}
	var out string
	for seconds := 10; ; seconds *= 2 { // a busy machine needs more time
		status, text, errs := command(t.Context(), nil, nil, tuneArgs(dir, fmt.Sprintf("work --messages DIR/m.jsonl --for %ds --yes --write --force", seconds))...)
		if out = text; status == ExitOK {
			break
		}
		if !needsMoreTime(errs) || seconds > 300 {
			t.Fatalf("status %d\n%s\n%s", status, out, errs)
		}
	}
	for _, want := range []string{"work, python function_app.work", "2 messages of ", "processes  threads", "█", "Throughput, calls/s", "Best: ", "+    processes: ", "drover reload"} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rest []string
	numbers := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "    processes: ") || strings.HasPrefix(line, "    threads: ") {
			numbers++
			continue
		}
		rest = append(rest, line)
	}
	if strings.Join(rest, "") != tuneConfigText || numbers != 2 {
		t.Errorf("it became\n%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("its mode is %v", info.Mode())
	}
	if made, err := filepath.Glob(filepath.Join(dir, ".drover", "nats*")); err != nil || len(made) > 0 {
		t.Errorf("a store was made: %v, %v", made, err)
	}
}

// One message in two fails: it is reported, and the cell is marked.
func TestTuneWithSomeFailures(t *testing.T) {
	dir := tuneDir(t)
	r, errs := tuneReport(t, dir, "some --messages DIR/m.jsonl --processes 1 --threads 1", 5)
	c := of(t, r, tune.Settings{Processes: 1, Threads: 1})
	if c.Failed == 0 || c.Failed == c.Calls || r.Best == nil || !strings.Contains(strings.Join(r.Notes, "\n"), "ValueError: no b") || !strings.Contains(errs, "failed: ValueError: no b") {
		t.Errorf("%+v\n%s", r, errs)
	}
}

// allGone reports whether all processes have ended.
func allGone(t *testing.T, pids []string) bool {
	t.Helper()
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return false
		}
	}
	return true
}

// If tune is interrupted, it reports its measurements so far. Its processes have ended, and the
// file is unchanged. Outputs are off: sending a result would have needed the embedded server.
func TestTuneStopped(t *testing.T) {
	dir := tuneDir(t)
	file := filepath.Join(dir, "drover.yaml")
	out, interrupt := startCommand(t, tuneArgs(dir, "noted --messages DIR/m.jsonl --for 10m --processes 1,2 --threads 2 --yes --write --html DIR/r.html")...)
	out.WaitFor(t, "2 settings")
	status := interrupt()
	if text := out.String(); status == ExitOK || !strings.Contains(text, "stopped before") {
		t.Errorf("status %d\n%s", status, text)
	}
	pids, err := os.ReadFile(filepath.Join(dir, "app/pids"))
	if err != nil || !allGone(t, strings.Fields(string(pids))) {
		t.Errorf("of its processes some are left: %v", err)
	}
	if text, _ := os.ReadFile(file); string(text) != tuneConfigText {
		t.Errorf("the configuration became\n%s", text)
	}
	if made, err := filepath.Glob(filepath.Join(dir, ".drover", "nats*")); err != nil || len(made) > 0 {
		t.Errorf("a store was made: %v, %v", made, err)
	}
}

// If tune is interrupted after some measurements, it names the best of them, and prints what to
// write where.
func TestTuneStoppedWithSomethingToTell(t *testing.T) {
	dir := tuneDir(t)
	file := filepath.Join(dir, "drover.yaml")
	out, interrupt := startCommand(t, tuneArgs(dir, "noted --messages DIR/m.jsonl --for 40s --processes 1,2 --threads 2 --yes --write")...)
	out.WaitFor(t, "1 of 6: ")
	status := interrupt()
	for _, want := range []string{"stopped before all was measured", "Best: 1 process × 2 threads", "left out: 2 processes × 2 threads: the run was over before", " is unchanged, because the run was stopped", "set processes: 1, threads: 2 for app app in "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status %d; it lacks %q:\n%s", status, want, out)
		}
	}
	if text, _ := os.ReadFile(file); status != ExitFailed || string(text) != tuneConfigText {
		t.Errorf("status %d; the configuration became\n%s", status, text)
	}
}

func TestTuneThatCannotBe(t *testing.T) {
	dir := tuneDir(t)
	for args, test := range map[string]struct {
		status int
		want   []string
	}{
		"wrk --messages DIR/m.jsonl --yes":                       {1, []string{"wrk is not a function of DIR/drover.yaml (did you mean work?)"}},
		"gofunc --messages DIR/m.jsonl --yes":                    {1, []string{"function gofunc runs in go gofunc, but tune is only for functions in worker processes", "concurrency"}},
		"web --messages DIR/m.jsonl --yes":                       {1, []string{"function web runs in post to http", "concurrency"}},
		"node --messages DIR/m.jsonl --yes --threads 2":          {2, []string{"--threads is not for Node.js"}},
		"work --messages DIR/m.jsonl":                            {2, []string{"the effects of its code are real", "on 2 messages", "add --yes"}},
		"work":                                                   {2, []string{"--messages"}},
		"work --messages DIR/empty --yes":                        {1, []string{"empty has no message"}},
		"work --messages DIR/binary --yes":                       {1, []string{"binary:1: not text"}},
		"work --messages DIR/text --yes":                         {1, []string{"text:1: not a message", "jq -cR"}},
		"work --messages DIR/wrong --yes":                        {1, []string{"wrong:2: a message has no key \"bdy\""}},
		"work --messages DIR/nowhere --yes":                      {1, []string{"reading messages"}},
		"work --messages DIR/m.jsonl --yes --for 10ms":           {2, []string{"--for must be at least 1s"}},
		"work --messages DIR/m.jsonl --yes --force":              {2, []string{"--force is for --write"}},
		"work --messages DIR/m.jsonl --yes --threads 0":          {2, []string{"--threads has 0"}},
		"work --messages DIR/m.jsonl --yes --processes 1,9999":   {2, []string{"--processes has 9999"}},
		"work --messages DIR/m.jsonl --yes --html DIR/nowhere/x": {2, []string{"there is no directory DIR/nowhere"}},
		"work --messages DIR/m.jsonl --yes --write=some":         {2, []string{"use cheapest"}},
		"none --messages DIR/m.jsonl --yes --for 20s":            {1, []string{"function none fails on every message", "the last error: ValueError: no luck ?[2J", "Traceback"}},
		"forever --messages DIR/m.jsonl --yes --for 2s":          {1, []string{"increase"}},
		"broken --messages DIR/m.jsonl --yes --for 20s":          {5, []string{"cannot start", "ModuleNotFoundError", "pip install nonexistent_pkg"}},
		"work --messages DIR/m.jsonl --yes -c DIR/nowhere.yaml":  {1, []string{"no configuration DIR/nowhere.yaml"}},
	} {
		t.Run(args, func(t *testing.T) {
			status, out, errs := command(t.Context(), nil, nil, tuneArgs(dir, args)...)
			if status != test.status {
				t.Errorf("status %d, want %d\n%s%s", status, test.status, out, errs)
			}
			for _, want := range test.want {
				if !strings.Contains(errs, strings.ReplaceAll(want, "DIR", dir)) {
					t.Errorf("it lacks %q:\n%s", want, errs)
				}
			}
		})
	}
}

// On a terminal the command asks for confirmation. If no call ends in time on a busy machine, it
// runs again with twice the time.
func TestTuneAsks(t *testing.T) {
	dir := tuneDir(t)
	for answer, want := range map[string]string{"n\n": "nothing was run", "\n": "nothing was run", "": "nothing was run", "y\n": "first measurement", "YES\n": "first measurement"} {
		var status int
		var text string
		for seconds := 3; seconds < 300; seconds *= 2 {
			out := newPrinted()
			status = Command(t.Context(), tuneArgs(dir, fmt.Sprintf("work --messages DIR/m.jsonl --for %ds --processes 1 --threads 1", seconds)), &IO{
				In: strings.NewReader(answer), Out: out, Err: out, OutIsTerminal: true, ErrIsTerminal: true, Env: os.LookupEnv, Environ: os.Environ})
			if text = out.String(); !needsMoreTime(text) {
				break
			}
		}
		if !strings.Contains(text, "Run it? [y/N]") || !strings.Contains(text, want) || strings.Contains(want, "nothing") && status != ExitFailed {
			t.Errorf("%q: status %d\n%s", answer, status, text)
		}
	}
}

// Numbers that were measured on a busy machine are not written, and not recommended.
func TestTuneOnABusyMachine(t *testing.T) {
	cell := tune.Cell{Settings: tune.Settings{Processes: 2, Threads: 3}, Throughput: 10}
	report := &tune.Report{Cores: 2, Others: 1.04, Best: &cell, Cheapest: &cell}
	var out bytes.Buffer
	err := (&tuneCommand{configFlag: configFlag{Config: "drover.yaml"}, Write: writeCheapest}).saveSettings(nil, &out, report, "app")
	want := "drover.yaml is unchanged, because other programs used 1.0 of 2 cores during the run, more than a fifth; run it again when the machine is quiet, or add --force; to use its results, set processes: 2, threads: 3 for app app in drover.yaml"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	err = (&tuneCommand{configFlag: configFlag{Config: "drover.yaml"}}).saveSettings(nil, &out, report, "app")
	if got := out.String(); err != nil || got != "To keep them anyway, add --write --force, or set processes: 2, threads: 3 for app app in drover.yaml.\n" {
		t.Errorf("%v %s", err, got)
	}
}
