package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// functionStatuses returns the status of a running daemon's functions.
func functionStatuses(t *testing.T, file string) map[string]api.FunctionStatus {
	t.Helper()
	_, text, _ := command(t.Context(), nil, nil, "status", "--json", "-c", file)
	var status struct {
		Functions []api.FunctionStatus `json:"functions"`
	}
	out := make(map[string]api.FunctionStatus)
	if json.Unmarshal([]byte(text), &status) == nil {
		for _, f := range status.Functions {
			out[f.Name] = f
		}
	}
	return out
}

// sendBodies sends a message for each body.
func sendBodies(t *testing.T, file, function string, bodies []string, args ...string) {
	t.Helper()
	lines := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(lines, []byte(strings.Join(bodies, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file, function, "--lines", lines}, args...)...); status != 0 {
		t.Fatalf("send: status %d: %s%s", status, out, errs)
	}
}

// hundredWith returns 100 bodies, one of them different.
func hundredWith(bad string) (out []string) {
	for i := range 100 {
		out = append(out, fmt.Sprint("good ", i))
	}
	out[63] = bad
	return out
}

const batchCode = `
import os, drover
def store(messages):
    if any(m.body == b"bad" for m in messages): raise ValueError("bad luck")
    print("stored", len(messages))
async def crash(messages):
    if any(m.body == b"bad" for m in messages): os._exit(3)
def judge(messages, context):
    assert context.function == "judge" and context.remaining() > 0
    return drover.Verdicts({m.id: drover.Reject("a bad one") for m in messages if m.body == b"bad"}, result=[len(messages)])
`

const batchModule = `
const { Reject, Verdicts } = require('drover');
const isBad = (message) => message.text() === 'bad';
exports.fetch = async (messages) => { if (messages.some(isBad)) throw new Error('bad luck'); };
exports.weigh = (messages) => new Verdicts(messages.map((m) => (isBad(m) ? new Reject('a bad one') : undefined)));
`

// Of 100 messages one is bad, at each source and in each language: only that one uses an attempt.
func TestBatchesWithOneBadMessage(t *testing.T) {
	t.Parallel()
	needNode(t)
	bus, busConnection := namespace(t)
	for _, queue := range []string{"store", "lists"} {
		if err := bus.CreateQueue(queue, emulator.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, account := storage(t)
	if _, err := queueClient(t, account, "store").Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for source, trigger := range map[string]string{"nats": "nats: {}", "servicebus": "servicebus: {connection: bus}", "storage": "storage_queue: {connection: account}"} {
		t.Run(source, func(t *testing.T) {
			names := []string{"store"}
			var functions strings.Builder
			add := func(name, handler string) {
				fmt.Fprintf(&functions, "  %s:\n    trigger: {%s}\n    handler: {%s}\n    batch: {size: 40, window: 2s}\n    retry: {max_attempts: 2, initial: 10ms}\n", name, trigger, handler)
			}
			add("store", "python: {path: ./app}")
			if source == "nats" {
				for _, name := range []string{"crash", "judge"} {
					add(name, "python: {path: ./app}")
					names = append(names, name)
				}
				for _, name := range []string{"fetch", "weigh"} {
					add(name, "node: {path: ./js, module: jobs}")
					names = append(names, name)
				}
				add("count", "go: count")
				names = append(names, "count")
			}
			dir := write(t, map[string]string{
				"drover.yaml": "connections:\n  local: {nats: embedded}\n  bus: {connection_string: \"file:bus\"}\n  account: {connection_string: \"file:account\"}\nfunctions:\n" + functions.String(),
				"bus":         busConnection, "account": account, "app/function_app.py": batchCode, "js/jobs.js": batchModule,
			})
			file := filepath.Join(dir, "drover.yaml")
			for _, name := range names {
				sendBodies(t, file, name, hundredWith("bad"))
			}
			log, stop := startWithBatchFuncs(t, handlers.BatchFuncs{"count": func(_ context.Context, messages []*triggers.Message) ([]handlers.Result, error) {
				if slices.ContainsFunc(messages, func(m *triggers.Message) bool { return string(m.Body) == "bad" }) {
					return nil, errors.New("bad luck")
				}
				return nil, nil
			}}, "run", file)
			var got map[string]api.FunctionStatus
			until(t, log, "all are done but the bad ones", func() bool {
				got = functionStatuses(t, file)
				return !slices.ContainsFunc(names, func(name string) bool { return got[name].Done+got[name].Rejected < 100 })
			})
			for _, name := range names {
				f := got[name]
				verdicts := name == "judge" || name == "weigh"
				failed := map[bool]int64{true: 1, false: 2}[verdicts] // a rejection is final
				if f.Done != 99 || f.Rejected != 1 || f.Failed != failed || f.Retried != failed-1 {
					t.Errorf("%s: done %d, rejected %d, failed %d, retried %d", name, f.Done, f.Rejected, f.Failed, f.Retried)
				}
				if b := f.Batches; b == nil || b.Messages < 100 || b.Calls >= b.Messages || (b.Splits == 0) != verdicts {
					t.Errorf("%s: %+v", name, b)
				}
			}
			if status := stop(); status != ExitOK {
				t.Errorf("status %d: %s", status, log)
			}
		})
	}
}

// The result of a call is sent once, before its messages are done; no call has more messages than
// size, and those that arrive within the window go together.
func TestTheResultOfABatch(t *testing.T) {
	t.Parallel()
	bus, connection := namespace(t)
	for _, queue := range []string{"readings", "lists"} {
		if err := bus.CreateQueue(queue, emulator.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	dir := write(t, map[string]string{"bus": connection, "app/function_app.py": "import drover\ndef readings(messages): return [m.text() for m in messages]\ndef lists(message): print('list of', message.content_type, message.text())\n", "drover.yaml": `
connections: {bus: {connection_string: "file:bus"}}
functions:
  readings: {trigger: {servicebus: {}}, handler: {python: {path: ./app}}, output: {servicebus: {queue: lists}}, batch: {size: 10, window: 2s}}
  lists: {trigger: {servicebus: {}}, handler: {python: {path: ./app}}}
`})
	file := filepath.Join(dir, "drover.yaml")
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprint(i))
	}
	sendBodies(t, file, "readings", want)
	log, stop := startCommand(t, "run", file)
	var all []string
	largest := 0
	until(t, log, "25 readings", func() bool {
		all, largest = nil, 0
		for line := range strings.Lines(log.String()) {
			if _, text, found := strings.Cut(line, "list of application/json "); found {
				var list []string
				text = strings.ReplaceAll(text[:strings.Index(text, "]")+1], `\"`, `"`)
				if err := json.Unmarshal([]byte(text), &list); err != nil {
					t.Fatalf("%q: %v", text, err)
				}
				all, largest = append(all, list...), max(largest, len(list))
			}
		}
		return len(all) >= 25
	})
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) || largest < 2 || largest > 10 {
		t.Errorf("%v; the longest list has %d", all, largest)
	}
	if got, err := bus.Counts("readings"); err != nil || got != (emulator.Counts{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestGoFunctionsTakeBatchesOrMessages(t *testing.T) {
	t.Parallel()
	const config = "connections: {local: {nats: embedded}}\nfunctions:\n  f: {trigger: {nats: {}}, handler: {go: NAME}BATCH}\n"
	single := handlers.Funcs{"one": func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }}
	several := handlers.BatchFuncs{"many": func(context.Context, []*triggers.Message) ([]handlers.Result, error) { return nil, nil }}
	for _, test := range []struct{ name, batch, want string }{
		{"one", "", ""}, {"many", ", batch: {size: 10}", "up to 10 messages in a call, without waiting for more"},
		{"many", ", batch: {size: 10, min: 5, window: 2s}", "up to 10 messages in a call, which waits 2s for 5"},
		{"one", ", batch: {size: 10}", `the Go function "one" takes one message, not a batch`},
		{"many", "", `the Go function "many" takes batches: set batch`},
		{"none", "", `this program has no Go function "none"`},
	} {
		dir := write(t, map[string]string{"drover.yaml": strings.NewReplacer("NAME", test.name, "BATCH", test.batch).Replace(config)})
		out := newPrinted()
		status := Command(t.Context(), []string{"check", filepath.Join(dir, "drover.yaml")}, &IO{Out: out, Err: out, Env: os.LookupEnv, Environ: os.Environ, Funcs: single, BatchFuncs: several})
		if (status == ExitOK) != (test.want == "" || strings.HasPrefix(test.want, "up to")) || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s%s: status %d, want %q\n%s", test.name, test.batch, status, test.want, out)
		}
	}
}

// checkLanes checks the log of functions that print "lane KEY NUMBER of SIZE ATTEMPT" for each
// message: the messages of each key are in order. It returns the maximum number of messages in a
// call, and the attempt of "a 17".
func checkLanes(t *testing.T, log string, keys ...string) (together, attempt int) {
	t.Helper()
	next := map[string]int{}
	for line := range strings.Lines(log) {
		_, text, found := strings.Cut(line, `"msg":"lane `)
		if !found {
			continue
		}
		var lane string
		var n, of, tries int
		if _, err := fmt.Sscanf(text, "%s %d of %d %d", &lane, &n, &of, &tries); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if n != next[lane] {
			t.Fatalf("lane %s: %d where %d is next", lane, n, next[lane])
		}
		next[lane]++
		together = max(together, of)
		if lane == "a" && n == 17 {
			attempt = tries
		}
	}
	for _, key := range keys {
		if next[key] != 60 {
			t.Errorf("lane %s: %d messages, want 60", key, next[key])
		}
	}
	return together, attempt
}

// lane returns the bodies of 60 messages of a key.
func lane(key string) (out []string) {
	for i := range 60 {
		out = append(out, fmt.Sprint(key, " ", i))
	}
	return out
}

const laneCode = `
failed = False
def lanes(messages):
    global failed
    if not failed and any(m.text() == "a 17" for m in messages):
        failed = len(messages) == 1
        raise ValueError("once")
    for m in messages: print("lane", m.text(), "of", len(messages), m.attempt)
`

// Messages of one session are in a batch in order, and one that fails holds back later ones.
func TestBatchesKeepTheOrderOfSessions(t *testing.T) {
	t.Parallel()
	bus, connection := namespace(t)
	if err := bus.CreateQueue("lanes", emulator.QueueOptions{RequiresSession: true}); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"bus": connection, "drover.yaml": `
connections: {bus: {connection_string: "file:bus"}}
functions:
  lanes:
    trigger: {servicebus: {sessions: true}}
    handler: {python: {path: ./app}}
    batch: {size: 20}
    retry: {max_attempts: 3, initial: 20ms}
`, "app/function_app.py": laneCode})
	file := filepath.Join(dir, "drover.yaml")
	for _, key := range []string{"a", "b", "c"} {
		sendBodies(t, file, "lanes", lane(key), "--session", key)
	}
	log, stop := startCommand(t, "run", file)
	until(t, log, "180 messages", func() bool { return functionStatuses(t, file)["lanes"].Done >= 180 })
	f := functionStatuses(t, file)["lanes"]
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if f.Done != 180 || f.Retried != 1 || f.Failed != 1 {
		t.Errorf("done %d, retried %d, failed %d", f.Done, f.Retried, f.Failed)
	}
	if together, attempt := checkLanes(t, log.String(), "a", "b", "c"); together < 3 || attempt != 2 {
		t.Errorf("at most %d together; the one that failed had attempt %d", together, attempt)
	}
	if got, err := bus.Counts("lanes"); err != nil || got != (emulator.Counts{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// Messages of one key are in a batch in order, and one that fails holds back later ones.
func TestBatchesKeepTheOrderOfKeys(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
connections: {local: {nats: embedded}}
functions:
  lanes:
    trigger: {nats: {stream: LANES, subject: "lanes.*", ordering_token: 2}}
    handler: {python: {path: ./app}}
    batch: {size: 20}
    retry: {max_attempts: 3, initial: 20ms}
`, "app/function_app.py": laneCode})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, `"msg":"running"`)
	if status, _, errs := command(t.Context(), nil, nil, "pause", "lanes", "-c", file); status != ExitOK {
		t.Fatal(errs)
	}
	for _, key := range []string{"a", "b"} {
		sendBodies(t, file, "lanes."+key, lane(key), "--via", "local")
	}
	if status, _, errs := command(t.Context(), nil, nil, "resume", "lanes", "-c", file); status != ExitOK {
		t.Fatal(errs)
	}
	until(t, log, "120 messages", func() bool { return functionStatuses(t, file)["lanes"].Done == 120 })
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if together, attempt := checkLanes(t, log.String(), "a", "b"); together < 3 || attempt != 2 {
		t.Errorf("at most %d together; the one that failed had attempt %d", together, attempt)
	}
}
