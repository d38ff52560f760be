package timer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

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

// clock is one that a test can set: the bubble's, with a step.
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

// instance is one whose deliveries a test settles.
type instance struct {
	*Trigger
	got  chan *triggers.Delivery
	errs chan error
	stop func() // of receiving, and of the trigger
	kill func() // leaves everything as it is
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

// take returns the delivery that is out; nil if there is none.
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

var done = triggers.Verdict{Kind: triggers.Done}

// runFor settles what comes for a while, each after took, and returns when it came, since now.
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

func TestRuns(t *testing.T) {
	for name, test := range map[string]struct {
		schedule  string
		took      time.Duration
		instances int
		want      []string
	}{
		"each occurrence":               {"0 */5 * * * *", 0, 1, []string{"00:05:00", "00:10:00", "00:15:00"}},
		"each once with three":          {"0 */5 * * * *", 0, 3, []string{"00:05:00", "00:10:00", "00:15:00"}},
		"those during a run are missed": {"0 */5 * * * *", 6 * time.Minute, 1, []string{"00:05:00", "00:15:00"}},
		"likewise with three":           {"0 */5 * * * *", 6 * time.Minute, 3, []string{"00:05:00", "00:15:00"}},
		"a span, from the end":          {"00:05:00", time.Minute, 1, []string{"00:05:00", "00:11:00", "00:17:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				store := &shared{term: 10 * time.Second}
				var all []*instance
				for range test.instances {
					all = append(all, start(t, config(t, test.schedule, store)))
				}
				wantRuns(t, runFor(t, 17*time.Minute+30*time.Second, test.took, all...), test.want...)
				for _, i := range all {
					i.stop()
				}
			})
		})
	}
}

func TestMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(t, "0 */5 * * * *", &shared{})
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Schedule, err = schedule.Parse("0 */5 * * * *", zone); err != nil {
			t.Fatal(err)
		}
		i := start(t, cfg)
		runFor(t, 6*time.Minute, 2*time.Second, i)
		time.Sleep(4 * time.Minute)
		d := i.take()
		m := d.Message
		want := `{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"2000-01-01T01:05:00+01:00","Next":"2000-01-01T01:10:00+01:00","LastUpdated":"2000-01-01T01:05:02+01:00"},"IsPastDue":false}`
		if string(m.Body) != want {
			t.Errorf("the body is %s, want %s", m.Body, want)
		}
		if m.ID != "2000-01-01T00:10:00Z" || m.Attempt != 1 || m.Subject != "clean" || !m.Enqueued.Equal(time.Now().Truncate(time.Minute)) {
			t.Errorf("the message is %+v", m)
		}
		if _, known := i.NextDue(); known {
			t.Error("the next occurrence is known during a run")
		}
		settle(t, d, done)
		if next, known := i.NextDue(); !known || next.Format(time.RFC3339) != "2000-01-01T01:15:00+01:00" {
			t.Errorf("next is %v", next)
		}
		if notes := i.Notes(); len(notes) != 1 || notes[0] != "the timer is due at 2000-01-01 01:15:00 CET, in 5m0s" {
			t.Errorf("%q", notes)
		}
		i.stop()
	})
}

// Without a monitor, and if it comes more than once a minute, a message has no status.
func TestMessageWithoutMonitor(t *testing.T) {
	for text, monitor := range map[string]bool{"0 */5 * * * *": false, "*/10 * * * * *": true, "00:00:59": true} {
		bubble(t, func(t *testing.T) {
			cfg := config(t, text, &shared{})
			cfg.UseMonitor = monitor
			i := start(t, cfg)
			time.Sleep(5 * time.Minute)
			if d := i.take(); d == nil || string(d.Message.Body) != `{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}` {
				t.Errorf("%s: %v", text, d)
			}
		})
	}
}

func isPastDue(t testing.TB, d *triggers.Delivery) bool {
	t.Helper()
	var info Info
	if err := json.Unmarshal(d.Message.Body, &info); err != nil {
		t.Fatal(err)
	}
	return info.IsPastDue
}

func TestPastDue(t *testing.T) {
	for name, test := range map[string]struct {
		schedule, then string // then: of the second instance
		monitor        bool
		down           time.Duration // from 00:01:00 on
		want           []string
		pastDue        bool // the first
	}{
		"missed":                     {"0 */5 * * * *", "", true, 20 * time.Minute, []string{"00:21:00", "00:25:00"}, true},
		"not missed":                 {"0 */5 * * * *", "", true, 2 * time.Minute, []string{"00:05:00", "00:10:00", "00:15:00", "00:20:00", "00:25:00"}, false},
		"missed without a monitor":   {"0 */5 * * * *", "", false, 20 * time.Minute, []string{"00:25:00"}, false},
		"missed, but it is frequent": {"30,31 5-55/10 * * * *", "", true, 20 * time.Minute, []string{"00:25:30"}, false},
		"another schedule":           {"0 */5 * * * *", "0 */12 * * * *", true, 20 * time.Minute, []string{"00:24:00"}, false},
		"a span":                     {"00:05:00", "", true, 20 * time.Minute, []string{"00:21:00", "00:26:00"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				store := &shared{}
				first := config(t, test.schedule, store)
				first.UseMonitor = test.monitor
				i := start(t, first)
				time.Sleep(time.Minute)
				i.stop()
				time.Sleep(test.down)
				second := first
				if test.then != "" {
					second = config(t, test.then, store)
				}
				i = start(t, second)
				synctest.Wait()
				var got []string
				for time.Now().Minute() < 27 {
					if d := i.take(); d != nil {
						if past := isPastDue(t, d); past != (test.pastDue && len(got) == 0) {
							t.Errorf("run %d: past due %v", len(got), past)
						}
						got = append(got, time.Now().Format("15:04:05"))
						settle(t, d, done)
						if len(got) == len(test.want) {
							break
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
				wantRuns(t, got, test.want...)
			})
		})
	}
}

func TestRunsAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{}
		cfg := config(t, "0 0 0 1 6 *", store)
		cfg.StartedAt = time.Now()
		one, two := start(t, cfg), start(t, cfg)
		other := cfg // on another machine
		other.StartedAt = time.Now().Add(20 * time.Second)
		wantRuns(t, runFor(t, time.Minute, 0, one, two, start(t, other)), "00:00:00")
		if d := one.take(); d != nil {
			t.Errorf("it has run again: %v", d.Message)
		}
		one.stop()
		two.stop()
		time.Sleep(time.Hour)
		again := start(t, cfg) // an instance that was restarted
		wantRuns(t, runFor(t, time.Minute, 0, again))
		cfg.StartedAt = time.Now()
		wantRuns(t, runFor(t, time.Minute, 0, start(t, cfg)), "01:02:00")
		if next := store.state.Next; next.Month() != time.June {
			t.Errorf("next is %v", next)
		}
	})
}

func TestVerdicts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{term: 10 * time.Second}
		i, other := start(t, config(t, "0 */5 * * * *", store)), start(t, config(t, "0 */5 * * * *", store))
		next := func(at string, attempt int) *triggers.Delivery {
			t.Helper()
			for {
				d := i.take()
				if d == nil {
					d = other.take()
				}
				if d == nil {
					time.Sleep(500 * time.Millisecond)
					continue
				}
				if now := time.Now().Format("15:04:05"); now[:len(at)] != at || d.Message.Attempt != attempt || isPastDue(t, d) {
					t.Errorf("attempt %d at %s, past due %v; want attempt %d at %s", d.Message.Attempt, now, isPastDue(t, d), attempt, at)
				}
				return d
			}
		}
		// A failed run takes its attempts, and misses what comes meanwhile.
		d := next("00:05:00", 1)
		id := d.Message.ID
		settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: 3 * time.Minute})
		d = next("00:08:", 2)
		settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: 3 * time.Minute})
		d = next("00:11:", 3)
		if d.Message.ID != id {
			t.Errorf("the run %s is retried as %s", id, d.Message.ID)
		}
		if err := d.Settle(context.Background(), triggers.Verdict{Kind: triggers.Reject, Reason: "broken"}); err != nil {
			t.Fatal(err)
		}
		if err := d.Settle(context.Background(), done); !errors.Is(err, triggers.ErrSettled) {
			t.Errorf("settled again: %v", err)
		}
		// A released run uses no attempt, and runs elsewhere.
		d = next("00:15:00", 1)
		settle(t, d, triggers.Verdict{Kind: triggers.Retry})
		d = next("00:15:", 2)
		settle(t, d, triggers.Verdict{Kind: triggers.Release})
		settle(t, next("00:15:", 2), done)
		d = next("00:20:00", 1)
		settle(t, d, triggers.Verdict{Kind: triggers.Release})
		settle(t, next("00:20:", 1), done)
		settle(t, next("00:25:00", 1), done)
	})
}

// A killed instance leaves its lease. Another runs the occurrence again when it expires, and none
// is missed.
func TestKilledInstance(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{term: 10 * time.Second}
		one := start(t, config(t, "0 */5 * * * *", store))
		time.Sleep(5 * time.Minute)
		killed := one.take()
		if killed == nil {
			t.Fatal("it did not run")
		}
		one.kill()
		two, three := start(t, config(t, "0 */5 * * * *", store)), start(t, config(t, "0 */5 * * * *", store))
		wantRuns(t, runFor(t, 11*time.Minute, 0, two, three), "00:05:15", "00:10:00", "00:15:00")
		if err := killed.Settle(context.Background(), done); err != nil || !store.state.Last.Equal(time.Date(2000, 1, 1, 0, 15, 0, 0, time.UTC)) {
			t.Errorf("the killed instance settles with %v, and changes the state: %+v", err, store.state)
		}
	})
}

// A long run renews its lease, so that no other instance runs.
func TestLongRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{term: 10 * time.Second}
		one, two := start(t, config(t, "0 0 * * * *", store)), start(t, config(t, "0 0 * * * *", store))
		time.Sleep(time.Hour)
		d := one.take()
		if d == nil {
			d = two.take()
		}
		time.Sleep(40 * time.Minute)
		if one.take() != nil || two.take() != nil {
			t.Error("it runs twice at once")
		}
		if b, err := one.Backlog(t.Context()); err != nil || b.Ready != 0 {
			t.Errorf("the backlog during a run is %+v, %v", b, err)
		}
		if store.renewed < 400 {
			t.Errorf("the lease was renewed %d times in 40 minutes", store.renewed)
		}
		settle(t, d, done)
		wantRuns(t, runFor(t, time.Hour, 0, one, two), "02:00:00")
	})
}

type revoked chan struct{}

func (r revoked) LeaseRevoked() { close(r) }

// A run whose lease cannot be renewed is revoked when it expires, since another instance may run.
func TestLostLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{term: 10 * time.Second}
		i := start(t, config(t, "0 0 * * * *", store))
		time.Sleep(time.Hour)
		d := i.take()
		lost := make(revoked)
		d.OnRevoked(lost)
		store.fail(errors.New("no connection"))
		began := time.Now()
		<-lost
		if took := time.Since(began); took < 10*time.Second || took > 15*time.Second {
			t.Errorf("revoked after %v", took)
		}
		if err := d.Settle(t.Context(), done); err == nil || i.take() != nil {
			t.Errorf("settled while the store is down: %v", err)
		}
		store.fail(nil)
		settle(t, d, done)
		wantRuns(t, runFor(t, time.Hour, 0, i), "02:00:00")
	})
}

func TestStoreIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{term: 10 * time.Second}
		i := start(t, config(t, "0 */5 * * * *", store))
		time.Sleep(time.Minute)
		store.fail(errors.New("no connection"))
		time.Sleep(6 * time.Minute)
		if err := <-i.errs; err.Error() != "timer clean: no connection" {
			t.Error(err)
		}
		if _, err := i.Backlog(t.Context()); err == nil {
			t.Error("it has a backlog")
		}
		store.fail(nil)
		time.Sleep(time.Second)
		d := i.take()
		if d == nil || !isPastDue(t, d) || d.Message.ID != "2000-01-01T00:05:00Z" {
			t.Fatalf("it runs %v when the store is back", d)
		}
		settle(t, d, done)
	})
}

func TestClockSteps(t *testing.T) {
	const daily = "0 0 12 * * *"
	for name, test := range map[string]struct {
		schedule string
		monitor  bool
		before   time.Duration // until the step
		step     time.Duration
		want     []string // by the clock of the instance
	}{
		"over an occurrence":           {daily, true, time.Hour, 12 * time.Hour, []string{"13:00 past due", "12:00"}},
		"over it, without a monitor":   {daily, false, time.Hour, 12 * time.Hour, []string{"12:00"}},
		"over many":                    {"0 */5 * * * *", true, time.Hour + time.Minute, 10 * time.Hour, []string{"11:01 past due", "11:05", "11:10"}},
		"to just before it":            {daily, true, time.Hour, 11*time.Hour - time.Minute, []string{"12:00", "12:00"}},
		"back a little":                {"0 */5 * * * *", true, time.Hour + time.Minute, -3 * time.Minute, []string{"01:05", "01:10"}},
		"back by far":                  {"0 */5 * * * *", true, 10*time.Hour + time.Minute, -9 * time.Hour, []string{"01:05", "01:10"}},
		"back by years, after a run":   {daily, true, 25 * time.Hour, -3 * 365 * 24 * time.Hour, []string{"12:00", "12:00"}},
		"back, and over an occurrence": {"0 0 * * * *", true, 2*time.Hour + time.Minute, -2 * time.Minute, []string{"03:00", "04:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var c clock
				cfg := config(t, test.schedule, &shared{})
				cfg.UseMonitor, cfg.Clock = test.monitor, c.now
				i := start(t, cfg)
				runFor(t, test.before, 0, i)
				c.move(test.step)
				var got []string
				for range 3 * 24 * 60 * 60 {
					if d := i.take(); d != nil {
						at := c.now().Format("15:04")
						if isPastDue(t, d) {
							at += " past due"
						}
						got = append(got, at)
						settle(t, d, done)
						if len(got) == len(test.want) {
							break
						}
					}
					time.Sleep(time.Second)
				}
				wantRuns(t, got, test.want...)
			})
		})
	}
}

// A delivery that was acquired too late for its Receive is for the next one; if there is none, it is
// released.
func TestLateForReceive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &slow{shared: shared{term: 10 * time.Second}, takes: time.Second}
		tr := Open(config(t, "0 */5 * * * *", store))
		receive := func(d time.Duration) []*triggers.Delivery {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			got, err := tr.Receive(ctx, 1)
			if (err == nil) != (len(got) == 1) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("received %d, %v", len(got), err)
			}
			return got
		}
		if got := receive(5*time.Minute + 500*time.Millisecond); len(got) != 0 {
			t.Fatal("it came early")
		}
		time.Sleep(time.Minute) // its lease is renewed
		got := receive(time.Second)
		if len(got) != 1 {
			t.Fatal("it did not come")
		}
		settle(t, got[0], done)
		receive(4*time.Minute - 500*time.Millisecond)
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := tr.Receive(t.Context(), 1); !errors.Is(err, errClosed) {
			t.Errorf("received after Close: %v", err)
		}
		if store.isLeased() || !store.state.Next.Equal(time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)) {
			t.Errorf("it was not released: %+v", store.state)
		}
	})
}

// slow is a store whose leases take a while.
type slow struct {
	shared
	takes time.Duration
}

func (s *slow) AcquireLease(ctx context.Context, isDue func(State) bool) (State, Lease, error) {
	time.Sleep(s.takes)
	return s.shared.AcquireLease(ctx, isDue)
}

func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{}
		tr := Open(config(t, "0 */5 * * * *", store)) // of a parent: it only reads
		ready := func(want int64) {
			t.Helper()
			if b, err := tr.Backlog(t.Context()); err != nil || b.Ready != want {
				t.Errorf("the backlog is %+v, %v; want %d", b, err, want)
			}
		}
		ready(0)
		i := start(t, config(t, "0 */5 * * * *", store))
		synctest.Wait()
		i.stop()
		ready(0)
		if next, known := tr.NextDue(); !known || next.Minute() != 5 {
			t.Errorf("next is %v", next)
		}
		time.Sleep(6 * time.Minute)
		ready(1)
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
