package triggertest

import (
	"errors"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// Searchable is one empty queue at a real server whose triggers are Finders.
type Searchable struct {
	*Source
	// IDs returns the ids of the messages that were not received, in order.
	IDs func(t testing.TB) []string
	// Leased is the Place of a message that another trigger has leased, and Back that of a
	// released one. Either is empty if the source does not show the message.
	Leased, Back triggers.Place
	// Doubtful is the field Doubtful of ready messages.
	Doubtful bool
}

// RunFind runs the suite for triggers that are Finders. open makes an empty queue for
// one test.
func RunFind(t *testing.T, open func(t *testing.T) *Searchable) {
	tests := []struct {
		name string
		run  func(t *testing.T, s *Searchable)
	}{
		{"ready", testFindReady},
		{"held", testFindHeld},
		{"failed before", testFindFailed},
		{"settled", testFindSettled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// find returns where a message is. The place is empty if it is not found.
func find(t *testing.T, tr triggers.Trigger, id string) triggers.Found {
	t.Helper()
	found, err := tr.(triggers.Finder).Find(t.Context(), id)
	if errors.Is(err, triggers.ErrNotFound) {
		if found != (triggers.Found{}) {
			t.Errorf("%s is not there, and it is %+v", id, found)
		}
		return found
	}
	if err != nil {
		t.Fatalf("looking for %s: %v", id, err)
	}
	return found
}

// findUntil waits until a message is at a place: a settlement may still be in transit.
func findUntil(t *testing.T, tr triggers.Trigger, id string, at triggers.Place) (found triggers.Found) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); ; <-look.C {
		if found = find(t, tr, id); found.Place == at {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %+v, want it at %q", id, found, at)
		}
	}
}

func testFindReady(t *testing.T, s *Searchable) {
	tr := s.Open(t)
	began := time.Now()
	s.Send(t, text("1", "2", "3")...)
	ids := s.IDs(t)
	if len(ids) != 3 {
		t.Fatalf("the ids are %q, of 3 messages", ids)
	}
	for n, id := range ids {
		found := find(t, tr, id)
		enqueued := found.Enqueued
		found.Enqueued = time.Time{}
		if want := (triggers.Found{Place: triggers.PlaceReady, Ahead: int64(n), Doubtful: s.Doubtful}); found != want {
			t.Errorf("%s is %+v, want %+v", id, found, want)
		}
		if enqueued.Before(began.Add(-time.Minute)) || enqueued.After(time.Now().Add(time.Minute)) {
			t.Errorf("it was enqueued at %v", enqueued)
		}
	}
	if found := find(t, tr, "no-such-message"); found.Place != "" {
		t.Errorf("one that never was is %+v", found)
	}
	done(t, receive(t, tr, 3)...) // to look has taken none
}

func testFindHeld(t *testing.T, s *Searchable) {
	tr, other := s.Open(t), s.Open(t)
	s.Send(t, text("1")...)
	d := receive(t, tr, 1)[0]
	if found := find(t, tr, d.Message.ID); found.Place != triggers.PlaceHeld || found.Failures != 0 || found.Ahead >= 0 || !found.Enqueued.Equal(d.Message.Enqueued) {
		t.Errorf("the one that has it finds %+v", found)
	}
	if found := find(t, other, d.Message.ID); found.Place != s.Leased {
		t.Errorf("another finds %+v, want it at %q", found, s.Leased)
	}
	done(t, d)
}

func testFindFailed(t *testing.T, s *Searchable) {
	tr := s.Open(t)
	s.Send(t, text("1")...)
	d := receive(t, tr, 1)[0]
	settle(t, d, triggers.Verdict{Kind: triggers.Retry})
	other := s.Open(t) // which receives nothing
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := findUntil(t, other, d.Message.ID, s.Back); found.Failures != 1 {
		t.Errorf("it has failed once, and is %+v", found)
	}
	d = receive(t, other, 1)[0]
	if found := find(t, other, d.Message.ID); found.Place != triggers.PlaceHeld || found.Failures != 1 {
		t.Errorf("it has failed once, is received again, and is %+v", found)
	}
	done(t, d)
}

func testFindSettled(t *testing.T, s *Searchable) {
	tr := s.Open(t)
	s.Send(t, text("1", "2")...)
	ds := receive(t, tr, 2)
	done(t, ds[0])
	settle(t, ds[1], triggers.Verdict{Kind: triggers.Reject, Reason: "no good"})
	for _, d := range ds {
		findUntil(t, tr, d.Message.ID, "")
	}
}
