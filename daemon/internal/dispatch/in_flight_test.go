package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// The set lists each message from addExecution to removeExecution, while other goroutines list it.
func TestInFlightSet(t *testing.T) {
	var s inFlightSet
	var listing sync.WaitGroup
	stop := make(chan struct{})
	listing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				for _, x := range s.listAll() {
					_ = x.received
				}
			}
		}
	})
	const most = 100
	var in []*execution
	for n := range 20_000 {
		x := &execution{received: time.Now()}
		s.addExecution(x)
		in = append(in, x)
		if len(in) > most {
			// Neither the oldest nor the newest: some stay for a long time.
			at := 7 * n % most
			s.removeExecution(in[at])
			in = slices.Delete(in, at, at+1)
		}
	}
	close(stop)
	listing.Wait()
	found := s.listAll()
	if len(found) != len(in) {
		t.Errorf("%d are listed, of %d", len(found), len(in))
	}
	for _, x := range in {
		if !slices.Contains(found, x) {
			t.Fatal("a message in flight is not listed")
		}
	}
}

func TestRecentFailures(t *testing.T) {
	var s recentFailures
	now := time.Now()
	for n := range 3 * keptFailures {
		s.recordFailure(&triggers.Message{ID: fmt.Sprint("m", n), Attempt: 1}, triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour}, errors.New("oh"))
	}
	s.recordFailure(&triggers.Message{ID: "done"}, triggers.Verdict{Kind: triggers.Done}, nil)
	if n, next := s.waitingRetries(now); n != keptFailures || next.Before(now.Add(time.Hour-time.Minute)) {
		t.Errorf("%d wait, the next until %v", n, next)
	}
	if _, found := s.latestOf("m0"); found {
		t.Error("the oldest is still there")
	}
	if b, found := s.latestOf(fmt.Sprint("m", 3*keptFailures-1)); !found || b.Error != "oh" {
		t.Errorf("%+v", b)
	}
	if _, found := s.latestOf("done"); found {
		t.Error("one that is done is there")
	}
}
