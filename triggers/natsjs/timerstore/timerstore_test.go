package timerstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/timer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func server(t testing.TB) *embedded.Server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "off", Sync: time.Minute, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func connect(t testing.TB, e *embedded.Server) *nats.Conn {
	t.Helper()
	closed := make(chan struct{})
	c, err := nats.Connect("", nats.InProcessServer(e), nats.Token(e.Token()), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-closed })
	return c
}

func store(t testing.TB, c *nats.Conn, name string, term time.Duration) *Store {
	t.Helper()
	s, err := New(c, Config{Group: "shop", Name: name, Term: term})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func always(timer.State) bool { return true }

func acquire(t testing.TB, s *Store) *held {
	t.Helper()
	_, got, err := s.AcquireLease(t.Context(), always)
	if err != nil {
		t.Fatal(err)
	}
	return got.(*held)
}

func TestStore(t *testing.T) {
	e := server(t)
	for _, name := range []string{"clean", "räume auf"} {
		one, two := store(t, connect(t, e), name, time.Minute), store(t, connect(t, e), name, time.Minute)
		if s, leased, err := one.ReadState(t.Context()); err != nil || leased || s.Schedule != "" {
			t.Errorf("a new timer has the state %+v, %v, %v", s, leased, err)
		}
		h := acquire(t, one)
		if _, _, err := two.AcquireLease(t.Context(), always); !errors.Is(err, timer.ErrLeased) {
			t.Errorf("leased twice: %v", err)
		}
		if _, leased, err := two.ReadState(t.Context()); err != nil || !leased {
			t.Errorf("it is leased: %v, %v", leased, err)
		}
		if err := h.RenewLease(t.Context()); err != nil {
			t.Error(err)
		}
		at := time.Now().Round(0)
		s := timer.State{Schedule: "x", Next: at, Last: at, Updated: at, Failed: &timer.FailedRun{Due: at, Failures: 2, RetryAt: at}}
		if err := h.EndLease(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := h.EndLease(t.Context(), s); err != nil {
			t.Errorf("again, because the answer was lost: %v", err)
		}
		got, leased, err := two.ReadState(t.Context())
		if err != nil || leased || !got.Next.Equal(at) || got.Failed == nil || got.Failed.Failures != 2 {
			t.Errorf("the state is %+v, %v, %v", got, leased, err)
		}
		if _, h, err := two.AcquireLease(t.Context(), func(s timer.State) bool { return s.Schedule != "x" }); err != nil || h != nil {
			t.Errorf("leased although it is not due: %v", err)
		}
		acquire(t, two)
	}
}

// Of many instances, one acquires each lease.
func TestOneOfMany(t *testing.T) {
	e := server(t)
	var all []*Store
	for range 8 {
		all = append(all, store(t, connect(t, e), "clean", time.Minute))
	}
	for round := range 20 {
		var trying sync.WaitGroup
		got := make(chan timer.Lease, len(all))
		for _, s := range all {
			trying.Go(func() {
				_, h, err := s.AcquireLease(t.Context(), always)
				if err == nil {
					got <- h
				} else if !errors.Is(err, timer.ErrLeased) {
					t.Error(err)
				}
			})
		}
		trying.Wait()
		if len(got) != 1 {
			t.Fatalf("round %d: %d instances have the lease", round, len(got))
		}
		if err := (<-got).EndLease(t.Context(), timer.State{Updated: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
}

// A lease that is not renewed in time is taken over, and lost for its holder.
func TestExpiredLease(t *testing.T) {
	e := server(t)
	one, two := store(t, connect(t, e), "clean", time.Minute), store(t, connect(t, e), "clean", time.Minute)
	h := acquire(t, one)
	leased := func(want bool) {
		t.Helper()
		if _, got, err := two.ReadState(t.Context()); err != nil || got != want {
			t.Fatalf("leased: %v, %v; want %v", got, err, want)
		}
	}
	later := func(d time.Duration) { two.since = two.since.Add(-d) }
	leased(true)
	later(40 * time.Second)
	leased(true)
	if err := h.RenewLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	leased(true)
	later(40 * time.Second)
	leased(true) // the renewal has started a new term
	later(21 * time.Second)
	leased(false)
	next := acquire(t, two)
	for what, err := range map[string]error{"renewed": h.RenewLease(t.Context()), "ended": h.EndLease(t.Context(), timer.State{Updated: time.Now()})} {
		if !errors.Is(err, lease.ErrLost) {
			t.Errorf("a lost lease was %s: %v", what, err)
		}
	}
	if err := next.EndLease(t.Context(), timer.State{Schedule: "x", Updated: time.Now()}); err != nil {
		t.Error(err)
	}
	if s, _, err := one.ReadState(t.Context()); err != nil || s.Schedule != "x" {
		t.Errorf("%+v, %v", s, err)
	}
}

// A write may take effect although its answer is lost.
func TestLostAnswers(t *testing.T) {
	e := server(t)
	s := store(t, connect(t, e), "clean", time.Minute)
	acquire(t, s) // lost
	h := acquire(t, s)
	before := h.revision
	if err := h.RenewLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.revision = before // lost
	if err := h.RenewLease(t.Context()); err != nil {
		t.Errorf("renewed again: %v", err)
	}
	h.revision = before
	if err := h.EndLease(t.Context(), timer.State{Schedule: "x", Updated: time.Now().Round(0)}); err != nil {
		t.Errorf("ended: %v", err)
	}
}

func TestForeignEntry(t *testing.T) {
	e := server(t)
	s := store(t, connect(t, e), "clean", time.Minute)
	bucket, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutString(t.Context(), "shop.clean", "hello"); err != nil {
		t.Fatal(err)
	}
	const want = "the entry shop.clean of the key-value bucket drover-timers is not drover's: invalid character 'h' looking for beginning of value; remove it: nats kv del drover-timers shop.clean"
	if _, _, err := s.AcquireLease(t.Context(), always); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestNoServer(t *testing.T) {
	e := server(t)
	s := store(t, connect(t, e), "clean", time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.AcquireLease(ctx, always); err == nil || errors.Is(err, timer.ErrLeased) {
		t.Error(err)
	}
	if _, _, err := s.ReadState(ctx); err == nil {
		t.Error("it was read")
	}
}
