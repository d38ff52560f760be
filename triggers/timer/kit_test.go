package timer

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/timer/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shared is the state of a timer that the stores of several instances share, in memory.
type shared struct {
	term time.Duration

	mu      sync.Mutex
	state   State
	holder  *held
	expires time.Time
	down    error // of all requests
	renewed int
}

type held struct{ s *shared }

func (s *shared) LeaseTerm() time.Duration { return s.term }

func (s *shared) isLeased() bool {
	return s.holder != nil && (s.term == 0 || time.Now().Before(s.expires))
}

func (s *shared) ReadState(context.Context) (State, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.isLeased(), s.down
}

func (s *shared) AcquireLease(_ context.Context, isDue func(State) bool) (State, Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil || !isDue(s.state) {
		return s.state, nil, s.down
	}
	if s.isLeased() {
		return s.state, nil, ErrLeased
	}
	s.holder, s.expires = &held{s}, time.Now().Add(s.term)
	return s.state, s.holder, nil
}

func (h *held) RenewLease(context.Context) error {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down != nil:
		return s.down
	case s.holder != h:
		return lease.ErrLost
	}
	s.renewed++
	s.expires = time.Now().Add(s.term)
	return nil
}

func (h *held) EndLease(_ context.Context, state State) error {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down != nil:
		return s.down
	case s.holder != h:
		return lease.ErrLost
	}
	s.state, s.holder = state, nil
	return nil
}

func (s *shared) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// clock is a clock that a test can set: the bubble's, with an offset.
type clock struct {
	mu   sync.Mutex
	step time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.step)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step += d
}

// instance is a timer whose deliveries a test settles.
type instance struct {
	*Trigger
	got  chan *triggers.Delivery
	errs chan error
	stop func() // of receiving, and of the trigger
	kill func() // cleans nothing up
}

func config(t testing.TB, text string, store Store) Config {
	t.Helper()
	s, err := schedule.Parse(text, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Name: "clean", Schedule: s, UseMonitor: true, Store: store, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func start(t testing.TB, cfg Config) *instance {
	t.Helper()
	tr := Open(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{Trigger: tr, got: make(chan *triggers.Delivery, 100), errs: make(chan error, 100)}
	var receiving sync.WaitGroup
	receiving.Go(func() {
		for ctx.Err() == nil {
			ds, err := tr.Receive(ctx, 10)
			for _, d := range ds {
				i.got <- d
			}
			if err != nil && ctx.Err() == nil {
				i.errs <- err
				time.Sleep(time.Second)
			}
		}
	})
	var once sync.Once
	i.kill = func() { once.Do(func() { cancel(); receiving.Wait(); tr.stop(); tr.running.Wait() }) }
	i.stop = func() {
		once.Do(func() {
			cancel()
			receiving.Wait()
			if err := tr.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(i.kill)
	return i
}

// take returns the delivery in flight, or nil.
func (i *instance) take() *triggers.Delivery {
	synctest.Wait()
	select {
	case d := <-i.got:
		return d
	default:
		return nil
	}
}

func settle(t testing.TB, d *triggers.Delivery, v triggers.Verdict) {
	t.Helper()
	if err := d.Settle(context.Background(), v); err != nil {
		t.Fatal(err)
	}
}

// runFor settles the runs of a period, each after took, and returns their times since now.
func runFor(t testing.TB, d, took time.Duration, instances ...*instance) (at []string) {
	t.Helper()
	start := time.Now()
	for time.Since(start) < d {
		for _, i := range instances {
			if got := i.take(); got != nil {
				at = append(at, time.Now().Format("15:04:05"))
				if took > 0 {
					time.Sleep(took)
				}
				settle(t, got, done)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return at
}

func wantRuns(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("it ran at %v, want %v", got, want)
	}
}

// A bubble starts at 2000-01-01 00:00:00 UTC.
func bubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

func isPastDue(t testing.TB, d *triggers.Delivery) bool {
	t.Helper()
	var info Info
	if err := json.Unmarshal(d.Message.Body, &info); err != nil {
		t.Fatal(err)
	}
	return info.IsPastDue
}
