package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/scaler/autotune"
)

const waitingApp = `
import threading, time
def work(body): time.sleep(0.02)
`

// statusOf requests the status of a running daemon until it is as wanted.
func statusOf(t *testing.T, file string, wanted func(daemon.StatusReport) bool) daemon.StatusReport {
	t.Helper()
	limit, tick := time.After(patience), time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		status, out, errs := command(t.Context(), nil, nil, "status", "--json", "-c", file)
		var r daemon.StatusReport
		if err := json.Unmarshal([]byte(out), &r); status == ExitOK && err == nil && wanted(r) {
			return r
		}
		select {
		case <-limit:
			t.Fatalf("not within %v: status %d\n%s%s", patience, status, out, errs)
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		case <-tick.C:
		}
	}
}

func sendMany(t *testing.T, file, function string, n int) {
	t.Helper()
	if status, _, errs := command(t.Context(), nil, nil, "send", function, "-c", file, "--body", "x", "--count", strconv.Itoa(n)); status != ExitOK {
		t.Fatalf("send: status %d\n%s", status, errs)
	}
}

// TestSettingsFindThemselves checks that functions that wait get threads, that the status and the
// log report it, and that the next daemon starts with the learned settings.
func TestSettingsFindThemselves(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
log: {format: text}
functions:
  work:
    trigger: {nats: {}}
    handler: {python: {path: ./app, processes: 1}}
`, "app/function_app.py": waitingApp})
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	sendMany(t, file, "work", 20_000)
	// A busy machine needs more messages, since the search takes longer there.
	busyUntil := func(wanted func(daemon.StatusReport) bool) daemon.StatusReport {
		return statusOf(t, file, func(r daemon.StatusReport) bool {
			if r.Functions[0].InFlight == 0 {
				sendMany(t, file, "work", 10_000)
			}
			return wanted(r)
		})
	}
	r := busyUntil(func(r daemon.StatusReport) bool {
		return len(r.Apps) == 1 && r.Apps[0].Threads >= 12 && r.Functions[0].Kind != nil && r.Functions[0].Kind.Kind == "blocking"
	})
	if a := r.Apps[0]; a.Name != "app" || a.Processes != 1 || fmt.Sprint(a.Auto) != "[threads coroutines]" || a.Phase == "" || a.Note == "" {
		t.Errorf("the app: %+v", a)
	}
	if text := (statustext.Status{Now: r}).Text(); !strings.Contains(text, "blocking I/O") || !strings.Contains(text, "threads (auto)") || !strings.Contains(text, "app app: 1 process, ") {
		t.Errorf("drover status:\n%s", text)
	}
	out.WaitFor(t, `msg="settings changed" app=app`)
	// Settings are remembered once the search is over.
	busyUntil(func(r daemon.StatusReport) bool { return r.Apps[0].Phase == autotune.PhaseHold })
	if status := stop(); status != ExitOK {
		t.Fatalf("status %d\n%s", status, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, ".drover", "tuning.json"))
	if err != nil || !strings.Contains(string(text), `"kind": "blocking"`) {
		t.Fatalf("%s, %v", text, err)
	}
	// The next daemon reports the kind before it has measured anything.
	out, stop = startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	r = statusOf(t, file, func(r daemon.StatusReport) bool { return len(r.Apps) == 1 })
	if k := r.Functions[0].Kind; k == nil || k.Kind != "blocking" || r.Apps[0].Threads < 2 {
		t.Errorf("after a restart: %+v, %+v", k, r.Apps[0])
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// TestGivenNumbersHold checks that numbers from the file and from Azure's variables are not
// changed, and that better ones are advised.
func TestGivenNumbersHold(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": `
log: {format: text}
functions:
  work:
    trigger: {nats: {}}
    handler: {python: {path: ./app, threads: 2}}
`, "app/function_app.py": waitingApp})
	t.Setenv("FUNCTIONS_WORKER_PROCESS_COUNT", "1")
	file := filepath.Join(dir, "drover.yaml")
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "msg=running")
	sendMany(t, file, "work", 10_000)
	r := statusOf(t, file, func(r daemon.StatusReport) bool {
		return slices.ContainsFunc(r.Advice, func(a string) bool { return strings.Contains(a, "threads") }) // other advice may come first
	})
	if a := r.Apps[0]; a.Processes != 1 || a.Threads != 2 || fmt.Sprint(a.Auto) != "[coroutines]" {
		t.Errorf("%+v", a)
	}
	if !strings.HasPrefix(r.Advice[0], "app app: auto would have about ") || !strings.Contains(r.Advice[0], "threads") {
		t.Errorf("the advice is %q", r.Advice[0])
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// TestLessonsThatCannotBeRead checks that a broken file loses only its own contents.
func TestLessonsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"drover.yaml":         "log: {format: text}\nfunctions: {work: {trigger: {nats: {}}, handler: {python: {path: ./app}}}}\n",
		"app/function_app.py": waitingApp, ".drover/tuning.json": "{",
	})
	out, stop := startCommand(t, "run", filepath.Join(dir, "drover.yaml"))
	out.WaitFor(t, "saved measurements of the apps cannot be read; they will be measured again")
	out.WaitFor(t, "msg=running")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestStatusTextIsOneLinePerAdvice(t *testing.T) {
	text := statustext.Status{Now: daemon.StatusReport{Phase: "running", Since: time.Now(), Advice: []string{"app shop: a worker takes 2.1s\nand more"}}}.Text()
	if !strings.Contains(text, "\napp shop: a worker takes 2.1s\n") || strings.Contains(text, "and more") {
		t.Errorf("%s", text)
	}
}
