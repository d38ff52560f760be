package timer

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

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
		// A failed run uses its attempts, and occurrences in the meantime are missed.
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

// A killed instance leaves its lease. Another instance runs the occurrence again when the lease
// expires, and none is missed.
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

// A delivery that was acquired too late for its Receive is kept for the next one; if there is none,
// it is released.
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

// slow is a store whose leases take some time.
type slow struct {
	shared
	takes time.Duration
}

func (s *slow) AcquireLease(ctx context.Context, isDue func(State) bool) (State, Lease, error) {
	time.Sleep(s.takes)
	return s.shared.AcquireLease(ctx, isDue)
}
