package cli

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

const orderedConfig = `
connections:
  local: {nats: embedded}
  bus: {connection_string: "file:secret"}
functions:
  stream:
    trigger: {nats: {connection: local, stream: KEYED, subject: "keyed.*", ordering_token: 2}}
    handler: {python: {app: keyed, function: handle}}
    retry: {max_attempts: 20, initial: 10ms, max: 20ms}
  sessions:
    trigger: {servicebus: {connection: bus, sessions: true}}
    handler: {python: {app: keyed, function: handle}}
    retry: {max_attempts: 20, initial: 10ms, max: 20ms}
apps:
  keyed: {path: ./app, processes: 2, threads: 4}
`

const orderedApp = `
import os, drover
runs = os.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "runs"), os.O_WRONLY | os.O_APPEND)
def handle(message):
    key, n = message.text().split()
    def record(what):
        os.write(runs, f"{key} {n} {what} {os.getpid()}\n".encode())
    record("start")
    if int(n) % 11 == 3 and message.attempt == 1: raise RuntimeError("fails once")
    record("end")
    if int(n) % 13 == 5: raise drover.Reject("as the test says")
`

// A message of a key starts when all earlier ones of the key are done or dead-lettered: after a
// pause, when some fail, and when workers are killed.
func TestOrderWhenWorkersAreKilled(t *testing.T) {
	t.Parallel()
	const keys, perKey, kills = 4, 30, 2
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, e, l)
	if err := e.CreateQueue("sessions", emulator.QueueOptions{RequiresSession: true, MaxDeliveryCount: 1000}); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"drover.yaml": orderedConfig, "secret": e.ConnectionString(l.Addr().String()), "app/function_app.py": orderedApp, "runs": ""})
	file := filepath.Join(dir, "drover.yaml")
	run := func(in string, args ...string) {
		t.Helper()
		if status, out, errs := command(t.Context(), nil, strings.NewReader(in), args...); status != ExitOK {
			t.Fatalf("%v: status %d: %s%s", args, status, out, errs)
		}
	}
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, "running")
	send := func(from, to int) {
		for k := range keys {
			for source, args := range map[string][]string{
				"stream":   {fmt.Sprintf("keyed.key%d", k), "--via", "local"},
				"sessions": {"sessions", "--session", fmt.Sprint("key", k)},
			} {
				var lines strings.Builder
				for n := from; n < to; n++ {
					fmt.Fprintf(&lines, "%s-key%d %d\n", source, k, n)
				}
				run(lines.String(), append([]string{"send", "-c", file, "--lines", "-"}, args...)...)
			}
		}
	}
	send(0, 5)
	run("", "pause", "stream", "-c", file)
	run("", "pause", "sessions", "-c", file)
	send(5, perKey)
	run("", "resume", "stream", "-c", file)
	run("", "resume", "sessions", "-c", file)

	killed, seed := 0, rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var last orderRecord
	until(t, log, "every message comes to its end", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "runs"))
		if err != nil {
			t.Fatal(err)
		}
		last = readOrder(string(text))
		if killed < kills && last.ended > (killed+1)*keys*perKey/2+random.IntN(10) && syscall.Kill(last.worker, syscall.SIGKILL) == nil {
			killed++
		}
		return last.ended == 2*keys*perKey
	})
	if killed < kills {
		t.Errorf("%d workers were killed, not %d", killed, kills)
	}
	for _, v := range last.violations {
		t.Error(v)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
}

// orderRecord is the result of a record of runs.
type orderRecord struct {
	violations []string
	ended      int // messages
	worker     int // the worker that has written last
}

func readOrder(text string) (r orderRecord) {
	over, next := make(map[string]bool), make(map[string]int)
	for line := range strings.Lines(text) {
		var key, what string
		var n, pid int
		if _, err := fmt.Sscan(line, &key, &n, &what, &pid); err != nil || !strings.HasSuffix(line, "\n") {
			continue
		}
		r.worker = pid
		id := fmt.Sprint(key, " ", n)
		switch {
		case what == "start" && n > next[key] && !over[id]:
			r.violations = append(r.violations, fmt.Sprintf("%s started before %d of its key had ended", id, next[key]))
		case what == "end" && !over[id]:
			over[id] = true
			r.ended++
			for over[fmt.Sprint(key, " ", next[key])] {
				next[key]++
			}
		}
	}
	return r
}
