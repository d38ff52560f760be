package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// measuredDaemon runs a daemon with one Go function and a queue in memory. stop stops it; the end
// of the test does, too.
func measuredDaemon(t *testing.T, run handlers.Func, change func(*configs.Config)) (d *Daemon, queue *memory.Queue, stop func()) {
	t.Helper()
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	f := configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}
	f.Retry.Initial, f.Retry.MaxAttempts = configs.Duration(time.Millisecond), 2
	cfg.Functions = map[string]configs.Function{"f": f}
	if change != nil {
		change(cfg)
	}
	queue = memory.New(time.Hour)
	t.Cleanup(queue.Close)
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, cancel := context.WithCancel(context.Background())
	d = New(cfg, WithTrigger("f", queue.Trigger()), WithReady(func() { close(ready) }), WithFuncs(handlers.Funcs{"f": run}))
	go func() { ended <- d.Run(running) }()
	stop = sync.OnceFunc(func() {
		cancel()
		var loadError *handlers.LoadError // some tests expect one
		if err := <-ended; err != nil && !errors.As(err, &loadError) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return d, queue, stop
}

// look gathers a daemon's metrics as a scrape does.
func look(t *testing.T, d *Daemon) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(status.NewCollectors(d.statusView())...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		out[f.GetName()] = f
	}
	return out
}

// In every scrape, received is the sum of settled and in flight, while messages move.
func TestLedgerInEveryScrape(t *testing.T) {
	const n = 20_000
	d, queue, stop := measuredDaemon(t, func(_ context.Context, m *triggers.Message) ([]byte, error) {
		switch rand.IntN(4) {
		case 0:
			return nil, errors.New("failed")
		case 1:
			return nil, handlers.Reject(errors.New("bad"))
		}
		return nil, nil
	}, nil)
	var sending sync.WaitGroup
	sending.Go(func() {
		for range n {
			queue.Send(triggers.Message{})
		}
	})
	scrapes, last := 0, 0.0
	ends := func(families map[string]*dto.MetricFamily) float64 {
		return sum(families["drover_messages_settled_total"], "verdict", "done", "reject")
	}
	for deadline := time.Now().Add(patience); ; scrapes++ {
		families := look(t, d)
		received, _ := balanced(t, families)
		if received < last {
			t.Errorf("a counter has fallen from %v to %v", last, received)
		}
		if last = received; ends(families) == n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v of %d came to their end", ends(families), n)
		}
	}
	if scrapes < 3 {
		t.Errorf("only %d scrapes while messages moved", scrapes)
	}
	sending.Wait()
	stop()
	if _, inFlight := balanced(t, look(t, d)); inFlight != 0 {
		t.Errorf("%v in flight when all is over", inFlight)
	}
}

// In flight is measured at the functions: it is not only the difference of the other counts.
func TestInFlightIsWhatIsHeld(t *testing.T) {
	const n = 7
	release := make(chan struct{})
	var begun sync.WaitGroup
	begun.Add(n)
	d, queue, stop := measuredDaemon(t, func(context.Context, *triggers.Message) ([]byte, error) {
		begun.Done()
		<-release
		return nil, nil
	}, nil)
	for range n {
		queue.Send(triggers.Message{})
	}
	begun.Wait()
	if received, inFlight := balanced(t, look(t, d)); received != n || inFlight != n {
		t.Errorf("received %v, in flight %v, while %d are held", received, inFlight, n)
	}
	close(release)
	stop()
}

func TestRejectionsHaveReasons(t *testing.T) {
	d, queue, stop := measuredDaemon(t, func(_ context.Context, m *triggers.Message) ([]byte, error) {
		if string(m.Body) == "bad" {
			return nil, handlers.Reject(errors.New("bad"))
		}
		return nil, errors.New("failed")
	}, func(cfg *configs.Config) {
		f := cfg.Functions["f"]
		f.MaxBody = 10
		cfg.Functions["f"] = f
	})
	for body, n := range map[string]int{"bad": 3, "fails": 2, "much too large": 1} {
		for range n {
			queue.Send(triggers.Message{Body: []byte(body)})
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(queue.Dead()) < 6; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 6 were rejected", len(queue.Dead()))
		}
	}
	stop()
	families := look(t, d)
	for reason, want := range map[string]float64{"function": 3, "attempts": 2, "size": 1} {
		if got := sum(families["drover_rejections_total"], "reason", reason); got != want {
			t.Errorf("%v were rejected for %s, want %v", got, reason, want)
		}
	}
	if got := sum(families["drover_messages_settled_total"], "verdict", "retry"); got != 2 {
		t.Errorf("%v retries, want 2", got)
	}
}

// unsteady is a source that is unreachable at times.
type unsteady struct {
	triggers.Trigger
	fail atomic.Bool
}

func (u *unsteady) Receive(ctx context.Context, n int) ([]*triggers.Delivery, error) {
	if u.fail.Load() {
		return nil, errors.New("the source is away")
	}
	return u.Trigger.Receive(ctx, n)
}

// The metrics show when a source becomes unreachable, and when it is reachable again.
func TestAConnectionThatIsLost(t *testing.T) {
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	cfg.Functions = map[string]configs.Function{"f": {Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}}
	queue := memory.New(time.Hour)
	t.Cleanup(queue.Close)
	source := &unsteady{Trigger: queue.Trigger()}
	source.fail.Store(true)
	ended := make(chan error, 1)
	running, stop := context.WithCancel(t.Context())
	ready := make(chan struct{})
	d := New(cfg, WithTrigger("f", source), WithReady(func() { close(ready) }), WithFuncs(handlers.Funcs{
		"f": func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil },
	}))
	go func() { ended <- d.Run(running) }()
	<-ready
	shows := func(connected float64) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); ; <-tick.C {
			families := look(t, d)
			down := sum(families["drover_trigger_disconnected_seconds"], "")
			if sum(families["drover_trigger_connected"], "") == connected && (down == 0) == (connected == 1) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("connected is not %v, and it is down for %v s", connected, down)
			}
		}
	}
	shows(0)
	source.fail.Store(false)
	queue.Send(triggers.Message{})
	shows(1)
	if n := sum(look(t, d)["drover_receive_errors_total"], ""); n < 1 {
		t.Errorf("%v receive errors", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
