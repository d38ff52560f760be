package lease

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// leased is a message whose renewals the test controls.
type leased struct {
	Item[*leased]
	message triggers.Message
	begun   time.Time
	renewed []time.Duration // since begun
	err     error           // of renewals
}

func (l *leased) Settle(context.Context, *triggers.Message, triggers.Verdict) error { return nil }

// LeaseRevoked implements triggers.RevokeHandler.
func (l *leased) LeaseRevoked() { l.message.ID = "revoked" }

type source struct {
	mu     sync.Mutex
	keeper *Keeper[*leased]
	lost   []*leased
}

// newSource runs a keeper until the test ends.
func newSource(t *testing.T) *source {
	s := new(source)
	s.keeper = NewKeeper[*leased](&s.mu)
	s.keeper.Lost = func(l *leased) { s.lost = append(s.lost, l) }
	s.keeper.Handle = func(l *leased) {
		s.keeper.Renew(t.Context(), &l.Item, func(context.Context) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			l.renewed = append(l.renewed, time.Since(l.begun))
			return l.err
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.keeper.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return s
}

func (s *source) lease(d, every time.Duration, err error) *leased {
	l := &leased{begun: time.Now(), err: err}
	l.Init(l, &l.message, l)
	l.Begin(l.begun, d, every)
	l.OnRevoked(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeper.Track(&l.Item)
	return l
}

func seconds(n ...float64) (out []time.Duration) {
	for _, s := range n {
		out = append(out, time.Duration(s*float64(time.Second)))
	}
	return out
}

func TestRenewal(t *testing.T) {
	for name, test := range map[string]struct {
		duration, every time.Duration
		err             error
		want            []time.Duration // within 20.5 s
	}{
		"at half time":         {duration: 8 * time.Second, want: seconds(4, 8, 12, 16, 20)},
		"at the latest":        {duration: time.Minute, every: 10 * time.Second, want: seconds(10, 20)},
		"again after a failed": {duration: 16 * time.Second, err: errors.New("no connection"), want: seconds(8, 10, 12, 14, 16, 18, 20)},
		"lost":                 {duration: 8 * time.Second, err: ErrLost, want: seconds(4)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource(t)
				l := s.lease(test.duration, test.every, test.err)
				time.Sleep(20*time.Second + 500*time.Millisecond)
				s.mu.Lock()
				defer s.mu.Unlock()
				if !slices.Equal(l.renewed, test.want) {
					t.Errorf("renewed at %v, want %v", l.renewed, test.want)
				}
				lost := errors.Is(test.err, ErrLost)
				if l.Lost() != lost || l.IsRevoked() != lost || len(s.lost) == 1 != lost || l.message.ID == "revoked" != lost {
					t.Errorf("lost %v, revoked %v, reported %d times, handler %q; want %v", l.Lost(), l.IsRevoked(), len(s.lost), l.message.ID, lost)
				}
				if want := 20 * time.Second; test.err == nil && l.Expires().Sub(l.begun) != want+test.duration {
					t.Errorf("it expires after %v, want %v", l.Expires().Sub(l.begun), want+test.duration)
				}
			})
		})
	}
}

func TestUntracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t)
		settled, kept := s.lease(8*time.Second, 0, nil), s.lease(8*time.Second, 0, nil)
		time.Sleep(time.Second)
		s.mu.Lock()
		s.keeper.Untrack(&settled.Item)
		s.keeper.Untrack(&settled.Item) // once more does nothing
		if n := s.keeper.Len(); n != 1 || !slices.Equal(slices.Collect(s.keeper.All()), []*leased{kept}) || settled.Tracked() || !kept.Tracked() {
			t.Errorf("%d are tracked", n)
		}
		s.mu.Unlock()
		s.keeper.Revoke(&settled.Item)
		time.Sleep(4 * time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(settled.renewed) > 0 || len(s.lost) > 0 || settled.IsRevoked() {
			t.Errorf("after its settlement it was renewed at %v, reported as lost %d times", settled.renewed, len(s.lost))
		}
		if len(kept.renewed) != 1 {
			t.Errorf("the other was renewed at %v", kept.renewed)
		}
	})
}

// A source may do something else with a message instead of renewing its lease.
func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t)
		begun := time.Now()
		at := begun.Add(30 * time.Second)
		var handled []time.Duration
		s.mu.Lock()
		s.keeper.Due = func(*leased, time.Time) time.Time { return at }
		s.keeper.Handle = func(*leased) {
			s.mu.Lock()
			defer s.mu.Unlock()
			handled, at = append(handled, time.Since(begun)), time.Time{}
		}
		s.mu.Unlock()
		s.lease(8*time.Second, 0, nil)
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		at = begun.Add(20 * time.Second)
		s.mu.Unlock()
		s.keeper.Check()
		time.Sleep(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if want := seconds(20); !slices.Equal(handled, want) {
			t.Errorf("handled at %v, want %v", handled, want)
		}
	})
}

func TestConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most, done := 0, 0, 0
		Concurrently(make([]int, 3*MaxConcurrent+1), func(int) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			done++
			mu.Unlock()
		})
		if most != MaxConcurrent || done != 3*MaxConcurrent+1 {
			t.Errorf("%d at once, %d in all", most, done)
		}
	})
}
