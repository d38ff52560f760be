package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// A replay preserves the order of a session, a queue and a stream.
func TestReplayKeepsTheOrder(t *testing.T) {
	t.Parallel()
	e, bus := namespace(t)
	if err := e.CreateQueue("carts", emulator.QueueOptions{RequiresSession: true}); err != nil {
		t.Fatal(err)
	}
	_, store := storage(t)
	dir := write(t, map[string]string{"bus": bus, "store": store, "drover.yaml": `
log: {level: warn}
data_dir: ./data
connections:
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
  nats: {nats: embedded}
functions:
  carts:
    trigger: {servicebus: {sessions: true, connection: bus}}
    handler: {go: note}
  orders:
    trigger: {servicebus: {connection: bus}}
    handler: {go: note}
    concurrency: 1
  images:
    trigger: {storage_queue: {create: true, max_poll_interval: 100ms, connection: store}}
    handler: {go: note}
    concurrency: 1
  events:
    trigger: {nats: {stream: EVENTS, subject: events, create: true, connection: nats}}
    handler: {go: note}
    concurrency: 1
`})
	file := filepath.Join(dir, "drover.yaml")
	const n = 20
	var mu sync.Mutex
	var accept atomic.Bool
	handled, rejected := make(map[string][]string), make(map[string][]string)
	more := make(chan struct{}, 1)
	daemonOf(t, file, handlers.Funcs{"note": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		into := rejected
		if accept.Load() {
			into = handled
		}
		key := m.Subject + m.OrderingKey
		into[key] = append(into[key], string(m.Body))
		select {
		case more <- struct{}{}:
		default:
		}
		if accept.Load() {
			return nil, nil
		}
		return nil, handlers.Reject(errors.New("all of them"))
	}})
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i+1))
	}
	until := func(all map[string][]string, messages int) {
		t.Helper()
		limit := time.After(patience)
		for {
			mu.Lock()
			got := 0
			for _, bodies := range all {
				got += len(bodies)
			}
			mu.Unlock()
			if got >= messages {
				return
			}
			select {
			case <-more:
			case <-limit:
				t.Fatalf("%d of %d messages", got, messages)
			}
		}
	}
	sends := [][]string{{"carts", "--session", "ann"}, {"carts", "--session", "bob"}, {"carts", "--session", "cid"}, {"orders"}, {"images"}, {"events"}}
	for _, args := range sends {
		if status, out, errs := command(t.Context(), nil, nil, append([]string{"send", "-c", file, "--count", fmt.Sprint(n)}, args...)...); status != 0 {
			t.Fatalf("send: %s%s", out, errs)
		}
	}
	until(rejected, n*len(sends))
	accept.Store(true)
	for f, all := range map[string]int{"carts": 3 * n, "orders": n, "images": n, "events": n} {
		untilDeadOf(t, file, f, all)
		dead(t, file, 0, fmt.Sprintf("matched %d, replayed %d, left 0", all, all), "replay", f, "--all")
	}
	until(handled, n*len(sends))
	mu.Lock()
	defer mu.Unlock()
	for key, bodies := range handled {
		before := rejected[key]
		if key == "images" { // a storage queue has no order, but all messages must arrive
			slices.Sort(before)
			slices.Sort(bodies)
		}
		if !slices.Equal(bodies, before) {
			t.Errorf("%s: died in the order %v, came back as %v", key, before, bodies)
		}
	}
	for _, session := range []string{"ann", "bob", "cid"} {
		if !slices.Equal(handled[session], want) {
			t.Errorf("session %s came back as %v", session, handled[session])
		}
	}
}

// untilDeadOf waits until a function has n dead letters.
func untilDeadOf(t *testing.T, file, function string, n int) {
	t.Helper()
	want := fmt.Sprintf("%d dead letters\n", n)
	var more []string
	if n > 30 { // with the default limit, listing a storage queue hides none of its letters
		more = []string{"--limit", "0"}
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		_, out, errs := command(t.Context(), nil, nil, append([]string{"dead", "list", function, "-c", file}, more...)...)
		if len(out) >= len(want) && out[len(out)-len(want):] == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %d: %s%s", n, out, errs)
		}
	}
}
