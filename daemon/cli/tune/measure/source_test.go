package measure

import (
	"strconv"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// The counts of a window do not depend on its position relative to the calls.
func TestSourceCountsPartsOfCalls(t *testing.T) {
	at := time.Now()
	after := func(seconds float64) time.Time { return at.Add(time.Duration(seconds * float64(time.Second))) }
	for _, from := range []float64{2, 2.25, 2.5, 2.9} {
		s := newSource(numberedMessages(3))
		// Four calls at a time, a second each, which end together.
		handOut := func(when float64) (out []*leasedMessage) {
			s.handOut(4, after(when))
			for l := s.inFlight.next; l != &s.inFlight; l = l.next {
				out = append(out, l)
			}
			return out
		}
		leased := handOut(2)
		s.openWindow(after(from))
		end := from + 3.3
		for when := 3.0; when < end; when++ {
			for _, l := range leased {
				s.countVerdict(l, triggers.Done, after(when))
			}
			leased = handOut(when)
		}
		w, throughput, settled := s.closeWindow(after(end))
		if throughput < 3.999 || throughput > 4.001 || w.failed != 0 || !settled {
			t.Errorf("a window from %v on has %v calls/s, want 4: %+v", from, throughput, w)
		}
	}
}

func numberedMessages(n int) (out []*triggers.Message) {
	for i := range n {
		out = append(out, &triggers.Message{ID: strconv.Itoa(i)})
	}
	return out
}

func TestSourceCountsVerdicts(t *testing.T) {
	at := time.Now()
	s := newSource(numberedMessages(2))
	settle := func(kind triggers.Kind) { s.countVerdict(s.inFlight.next, kind, at.Add(time.Second)) }
	s.handOut(5, at)
	if got := s.messages[s.next%2]; got.ID != "1" {
		t.Errorf("after five the next is %s", got.ID)
	}
	settle(triggers.Done) // no window is open
	s.openWindow(at)
	settle(triggers.Done)
	settle(triggers.Retry)
	settle(triggers.Reject)
	settle(triggers.Release)
	if s.countEnded() != 3 {
		t.Errorf("%d ended", s.countEnded())
	}
	w, throughput, settled := s.closeWindow(at.Add(time.Second))
	if w.ended != 3 || w.failed != 2 || throughput != 1 || !settled {
		t.Errorf("%+v, %v/s", w, throughput)
	}
	if w, throughput, settled := s.closeWindow(at); w.ended != 0 || throughput != 0 || settled {
		t.Errorf("of a window that was not opened: %+v, %v/s", w, throughput)
	}
	// Calls pile up within a worker: those in flight do not count.
	s.openWindow(at)
	s.handOut(1000, at)
	for range 10 {
		settle(triggers.Done)
	}
	if _, throughput, settled := s.closeWindow(at.Add(2 * time.Second)); throughput != 5 || settled || s.countInFlight() != 990 {
		t.Errorf("%v/s, settled %v, %d in flight", throughput, settled, s.countInFlight())
	}
	for range 990 {
		settle(triggers.Release)
	}
	if s.inFlight.next != &s.inFlight {
		t.Error("some are in flight")
	}
}
