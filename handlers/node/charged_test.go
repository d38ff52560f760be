package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// Only the call that blocks the event loop uses an attempt, whether it blocks before its first
// await or later, in JavaScript or in native code.
func TestWhoBlocksIsChargedAlone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ kind, code string }{
		"computes":                    {"async ", "for (;;);"},
		"computes, later":             {"async ", "await sleep(5); for (;;);"},
		"waits":                       {"async ", "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);"},
		"waits, later":                {"async ", "await sleep(5); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);"},
		"computes in a sync function": {"", "for (;;);"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": `
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
exports.f = ` + test.kind + `(message) => {
  if (message.text() === 'poison') {` + test.code + `}
  return sleep(20);
};
`}, func(c *workers.Config) { c.Settings.Coroutines, c.KillGrace = 16, 500*time.Millisecond }, "f")
			h, err := p.HandlerOf("f")
			if err != nil {
				t.Fatal(err)
			}
			room := make(chan struct{}, 16) // as many in flight
			var all sync.WaitGroup
			var charged atomic.Int64
			for i := range 100 {
				body := fmt.Sprint(i)
				if i == 41 {
					body = "poison"
				}
				room <- struct{}{}
				all.Go(func() {
					defer func() { <-room }()
					err := handlers.ErrNotTried
					for errors.Is(err, handlers.ErrNotTried) && t.Context().Err() == nil { // as the dispatcher does
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
						_, err = h.Handle(ctx, &triggers.Message{ID: fmt.Sprint(i), Body: []byte(body)})
						cancel()
					}
					switch {
					case body == "poison" && !errors.Is(err, context.DeadlineExceeded):
						t.Errorf("the culprit ended with %v", err)
					case body == "poison":
						charged.Add(1)
					case err != nil:
						t.Errorf("innocent %d was charged: %v", i, err)
					}
				})
			}
			all.Wait()
			if charged.Load() != 1 {
				t.Errorf("%d culprits", charged.Load())
			}
		})
	}
}

// A call that blocks the loop is logged with its place, and isolate moves its function to its own process.
func TestOnBlockedIsolate(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
exports.blocks = async () => { const end = Date.now() + 400; while (Date.now() < end); };
exports.other = async () => process.pid;
`}, func(c *workers.Config) {
		c.OnBlocked, c.Log = workers.BlockedIsolate, slog.New(slog.NewTextHandler(log, nil))
	}, "blocks", "other")
	deadline := time.Now().Add(patience)
	for i := 0; len(p.QuarantinedWorkers()) == 0; i++ {
		if _, err := call(t, p, "blocks", &triggers.Message{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("it was not isolated")
		}
	}
	log.wait(t, "an async function blocks the event loop", "index.js:2 in exports.blocks", "function=blocks", "worker_threads")
	if _, err := call(t, p, "other", &triggers.Message{ID: "other"}); err != nil {
		t.Error(err)
	}
}

// A slow call in a live process does not count as a dead worker.
func TestASlowCallIsNoDeadWorker(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"computes": "const end = Date.now() + 6000; while (Date.now() < end);",
		"waits":    "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6000);",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": "exports.f = async () => { " + code + " return process.pid; };\n"}, nil, "f")
			out, err := call(t, p, "f", &triggers.Message{ID: "1"})
			if s := p.Stats(); err != nil || len(s.PIDs) != 1 || fmt.Sprint(s.PIDs[0]) != string(out) || len(s.Restarts) != 0 {
				t.Errorf("%s, %v, %+v", out, err, s)
			}
		})
	}
}
