package cli

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// awaitSpare waits until the status reports a spare worker.
func awaitSpare(t *testing.T, file string) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		_, out, errs := command(t.Context(), nil, nil, "status", "--json", "-c", file)
		if strings.Contains(strings.ReplaceAll(out, " ", ""), `"spare_workers":1`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no spare worker:\n%s%s", out, errs)
		}
	}
}

// A reload replaces the spare worker, too: it runs the message of a worker that is killed with the new
// code. The message has used no attempt. A stop ends the spare worker.
func TestTheSpareWorkerHasTheNewCode(t *testing.T) {
	t.Parallel()
	const code = `
import os, time
def one(message):
    print("v1 of", os.getpid(), "attempt", message.attempt)
    try: os.close(os.open(message.text(), os.O_CREAT | os.O_EXCL))
    except FileExistsError: return print("it ran again")
    time.sleep(600)
`
	r := newReloaded(t, `
log: {format: text}
apps: {shop: {path: ./app, processes: 1, threads: 1, spare: 1}}
functions:
  one: {trigger: {nats: {}}, handler: {python: {app: shop}}}
`, code)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	awaitSpare(t, r.file)
	r.write("app/function_app.py", strings.Replace(code, "v1", "v2", 1))
	r.run(ExitOK, "reload", "reloaded: changed one")
	awaitSpare(t, r.file)
	r.send("one", filepath.Join(r.dir, "ran"))
	out.WaitFor(t, "v2 of")
	starts := regexp.MustCompile(`v2 of (\d+) attempt (\d+)`)
	pid, err := strconv.Atoi(starts.FindStringSubmatch(out.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	out.WaitFor(t, "it ran again")
	if again := starts.FindAllStringSubmatch(out.String(), -1)[1]; again[1] == strconv.Itoa(pid) || again[2] != "1" {
		t.Errorf("it ran again as %q, after it was killed in %d", again, pid)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	for _, one := range starts.FindAllStringSubmatch(out.String(), -1) {
		if pid, _ := strconv.Atoi(one[1]); syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d outlived the daemon", pid)
		}
	}
}
