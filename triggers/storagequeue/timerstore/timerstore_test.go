package timerstore

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/storagequeue"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
	"github.com/drover-run/drover/triggers/timer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func emulated(t testing.TB) string {
	t.Helper()
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return emulator.ConnectionString(l.Addr().String())
}

func open(t testing.TB, connection, name string) *Store {
	t.Helper()
	a := storagequeue.NewAccount(storagequeue.Access{ConnectionString: func() (string, error) { return connection, nil }})
	t.Cleanup(a.Close)
	s, err := New(Config{Account: a, Group: "shop", Name: name, Lease: 2 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func always(timer.State) bool { return true }

// acquire polls until it has the lease.
func acquire(t testing.TB, s *Store) (timer.State, timer.Lease) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); <-tick.C {
		state, held, err := s.AcquireLease(t.Context(), always)
		if err == nil {
			return state, held
		}
		if !errors.Is(err, timer.ErrLeased) {
			t.Fatal(err)
		}
	}
	t.Fatal("the lease did not end")
	return timer.State{}, nil
}

func TestStore(t *testing.T) {
	for name, start := range map[string]func(testing.TB) string{
		"emulator": emulated,
		"azurite":  func(t testing.TB) string { return azuritetest.Start(t).ConnectionString() },
	} {
		t.Run(name, func(t *testing.T) {
			connection := start(t)
			one, two := open(t, connection, "clean"), open(t, connection, "clean")
			if s, leased, err := one.ReadState(t.Context()); err != nil || !leased || s.Schedule != "" {
				t.Errorf("a new timer has the state %+v, %v, %v", s, leased, err)
			}
			s, held := acquire(t, one)
			if s.Schedule != "" {
				t.Errorf("a new timer has the state %+v", s)
			}
			if _, _, err := two.AcquireLease(t.Context(), always); !errors.Is(err, timer.ErrLeased) {
				t.Errorf("leased twice: %v", err)
			}
			if err := held.RenewLease(t.Context()); err != nil {
				t.Error(err)
			}
			due := time.Now().Add(2500 * time.Millisecond).Round(0)
			if err := held.EndLease(t.Context(), timer.State{Schedule: "x", Next: due}); err != nil {
				t.Fatal(err)
			}
			// It is hidden until it is due, or up to a second before.
			s, held = acquire(t, two)
			if early := time.Until(due); early > time.Second || s.Schedule != "x" || !s.Next.Equal(due) {
				t.Errorf("%v before it is due the state is %+v", early, s)
			}
			if err := held.EndLease(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			// One that is not due is hidden again.
			for {
				s, held, err := one.AcquireLease(t.Context(), func(timer.State) bool { return false })
				if errors.Is(err, timer.ErrLeased) {
					continue
				}
				if err != nil || held != nil || s.Schedule != "x" {
					t.Errorf("%+v, %v, %v", s, held, err)
				}
				break
			}
			if s, leased, err := two.ReadState(t.Context()); err != nil || !leased && s.Schedule != "x" {
				t.Errorf("%+v, %v, %v", s, leased, err)
			}
			// An expired lease is another's.
			_, held = acquire(t, one)
			_, other := acquire(t, two)
			if err := held.EndLease(t.Context(), timer.State{}); !errors.Is(err, lease.ErrLost) {
				t.Errorf("a lost lease was ended: %v", err)
			}
			if err := other.EndLease(t.Context(), timer.State{Schedule: "y"}); err != nil {
				t.Error(err)
			}
			if s, leased, err := one.ReadState(t.Context()); err != nil || leased || s.Schedule != "y" {
				t.Errorf("%+v, %v, %v", s, leased, err)
			}
		})
	}
}

func TestDamagedState(t *testing.T) {
	s := open(t, emulated(t), "clean")
	if got := s.parse("{"); got.Schedule != "" {
		t.Errorf("%+v", got)
	}
}

func TestQueueName(t *testing.T) {
	for function, want := range map[string]string{
		"clean":                    "drover-timers-shop-clean",
		"clean-up":                 "drover-timers-shop-clean-up",
		"cleanUp":                  "drover-timers-shop-cleanup-",
		"cleanup":                  "drover-timers-shop-cleanup",
		"räume":                    "drover-timers-shop-r-ume-",
		"überall":                  "drover-timers-shop-berall-",
		"日次":                       "drover-timers-shop-",
		"a_very_long_name_of_mine": "drover-timers-shop-a-very-long-nam-",
	} {
		got := QueueName("shop", function)
		rest, found := strings.CutPrefix(got, want)
		if isHashed := strings.HasSuffix(want, "-"); !found || isHashed != (len(rest) == 2*hashed) {
			t.Errorf("%s: %s, want %s", function, got, want)
		}
		if !queueName.MatchString(got) || len(got) > 63-20 {
			t.Errorf("%s: %s is not a name of a queue", function, got)
		}
	}
	if QueueName("shop", "cleanUp") == QueueName("shop", "cleanup") || QueueName("shop", "a.b") == QueueName("shop", "a:b") {
		t.Error("two functions have one queue")
	}
}
