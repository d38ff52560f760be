package daemon

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// TestInFlightMemory has more bytes waiting than may be in flight. Receiving waits and reports it,
// and continues when bytes are released. A message that is larger than the limit runs alone.
func TestInFlightMemory(t *testing.T) {
	const limit, size, messages = 4 << 20, 1 << 20, 24
	queue := memory.New(time.Hour)
	defer queue.Close()
	for range messages {
		queue.Send(triggers.Message{Body: make([]byte, size)})
	}
	var d *Daemon
	release, done, most := make(chan struct{}), make(chan struct{}, messages+1), atomic.Int64{}
	cfg := configs.New()
	cfg.DataDir, cfg.InFlightMemory, cfg.Admin.Listen = t.TempDir(), limit, "off"
	cfg.Functions = map[string]configs.Function{"f": {
		Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}, Concurrency: 64,
	}}
	d = New(cfg, WithTrigger("f", queue.Trigger()), WithFuncs(handlers.Funcs{"f": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		<-release
		if len(m.Body) == size {
			for used := d.statusView().Bodies().Used(); ; {
				if before := most.Load(); used <= before || most.CompareAndSwap(before, used) {
					break
				}
			}
		}
		done <- struct{}{}
		return nil, nil
	}}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	deadline := time.After(patience)
	for waits := false; !waits; {
		for _, s := range d.Status() {
			waits = s.WaitsForMemory && s.InFlight == limit/size
		}
		select {
		case <-deadline:
			t.Fatalf("it does not wait for memory: %+v", d.Status())
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond): // Status is polled: nothing signals a change
		}
	}
	if state, why := d.statusView().LimitingFactor(d.runningFunctions()[0], time.Now()); state != "memory" || !strings.Contains(why, "waits for memory: 4 of 4 MiB in flight") {
		t.Errorf("%s: %s", state, why)
	}
	close(release)
	for i := range messages + 1 {
		if i == messages {
			queue.Send(triggers.Message{Body: make([]byte, 2*limit)})
		}
		select {
		case <-done:
		case <-deadline:
			t.Fatalf("not all are done: %+v", d.Status())
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if used := d.statusView().Bodies().Used(); used != 0 {
		t.Errorf("%d bytes are left", used)
	}
	if n := most.Load(); n > limit {
		t.Errorf("%d bytes were in flight, of %d", n, limit)
	}
}
