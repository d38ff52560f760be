package storagequeue

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers/lease"
)

// singleLimit bounds the wait for the message.
const singleLimit = 3 * time.Minute

// single returns one instance of a Single, with its own account.
func single(t testing.TB, a *account, queue string) *Single {
	t.Helper()
	s, err := NewSingle(SingleConfig{Account: newAccount(t, a.connection), Queue: queue, Lease: time.Second, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hold polls until it has the message.
func hold(t testing.TB, s *Single) *HeldSingle {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(singleLimit); time.Now().Before(deadline); <-tick.C {
		h, err := s.HoldSingle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if h != nil {
			return h
		}
	}
	t.Fatal("the message did not come")
	return nil
}

func end(t testing.TB, h *HeldSingle, text string, hidden time.Duration) {
	t.Helper()
	if err := h.EndLease(t.Context(), text, hidden); err != nil {
		t.Fatal(err)
	}
}

func isHidden(t testing.TB, s *Single) {
	t.Helper()
	if h, err := s.HoldSingle(t.Context()); err != nil || h != nil {
		t.Errorf("it is held twice: %v, %v", h, err)
	}
}

func TestSingle(t *testing.T) {
	onBoth(t, func(t *testing.T, a *account) {
		name := fmt.Sprintf("single-%d", queues.Add(1))
		one, two := single(t, a, name), single(t, a, name)
		if _, hidden, err := one.ReadSingle(t.Context()); err != nil || !hidden {
			t.Errorf("without a queue: hidden %v, %v", hidden, err)
		}
		h := hold(t, one)
		if h.Text() != "" {
			t.Errorf("a new one has the text %q", h.Text())
		}
		isHidden(t, two)
		const long = `{"a": "<b> & \"c\" ä"}`
		end(t, h, long, 1500*time.Millisecond)
		isHidden(t, two)
		began := time.Now()
		h = hold(t, two)
		if waited := time.Since(began); waited < 500*time.Millisecond || h.Text() != long {
			t.Errorf("after %v it has the text %q", waited, h.Text())
		}
		if err := h.RenewLease(t.Context()); err != nil {
			t.Error(err)
		}
		isHidden(t, one)
		end(t, h, "next", 0)
		if text, hidden, err := one.ReadSingle(t.Context()); err != nil || hidden || text != "next" {
			t.Errorf("%q, hidden %v, %v", text, hidden, err)
		}
		// A lease that expires is another's.
		h = hold(t, one)
		other := hold(t, two)
		if other.Text() != "next" {
			t.Errorf("after an expired lease the text is %q", other.Text())
		}
		for what, err := range map[string]error{"renewed": h.RenewLease(t.Context()), "ended": h.EndLease(t.Context(), "lost", 0)} {
			if !errors.Is(err, lease.ErrLost) {
				t.Errorf("a lost lease was %s: %v", what, err)
			}
		}
		end(t, other, "kept", 0)
		if h := hold(t, one); h.Text() != "kept" {
			t.Errorf("%q", h.Text())
		}
	})
}

// Instances that start together agree on one message.
func TestSingleCreatedTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, a *account) {
		name := fmt.Sprintf("single-%d", queues.Add(1))
		const instances = 5
		var holding sync.WaitGroup
		var mu sync.Mutex
		turns := 0
		for range instances {
			s := single(t, a, name)
			holding.Go(func() {
				h := hold(t, s)
				mu.Lock()
				turns++
				if want := fmt.Sprint(turns - 1); h.Text() != want && turns > 1 {
					t.Errorf("turn %d has the text %q", turns, h.Text())
				}
				end(t, h, fmt.Sprint(turns), 0)
				mu.Unlock()
			})
		}
		holding.Wait()
		s := single(t, a, name)
		end(t, hold(t, s), "done", 0) // deletes the message of a late instance
		if n, err := s.queue.count(t.Context()); err != nil || n != 1 {
			t.Errorf("the queue has %d messages, %v", n, err)
		}
	})
}

// A message that was deleted is created again.
func TestSingleDeleted(t *testing.T) {
	a := emulated(t)
	name := fmt.Sprintf("single-%d", queues.Add(1))
	s := single(t, a, name)
	h := hold(t, s)
	if err := s.queue.remove(t.Context(), h.id, h.receipt); err != nil {
		t.Fatal(err)
	}
	if err := h.EndLease(t.Context(), "lost", 0); !errors.Is(err, lease.ErrLost) {
		t.Error(err)
	}
	if h := hold(t, s); h.Text() != "" {
		t.Errorf("%q", h.Text())
	}
}

// A new message next to a hidden one is deleted, not kept.
func TestSingleTooMany(t *testing.T) {
	a := emulated(t)
	name := fmt.Sprintf("single-%d", queues.Add(1))
	s := single(t, a, name)
	end(t, hold(t, s), "kept", 2*time.Second)
	if _, err := s.queue.put(t.Context(), newText, 0, forever); err != nil {
		t.Fatal(err)
	}
	isHidden(t, s) // the new one
	if h := hold(t, s); h.Text() != "kept" {
		t.Errorf("%q", h.Text())
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(singleLimit); ; <-tick.C {
		n, err := s.queue.count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the queue has %d messages", n)
		}
		_, _ = s.HoldSingle(t.Context())
	}
}
