package dispatch

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// The table lists each message from addEntry until its entry is nil, in about as few entries as
// needed, while other goroutines list it.
func TestInFlightTable(t *testing.T) {
	var p inFlightTable[execution]
	var looking sync.WaitGroup
	stop := make(chan struct{})
	looking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				for _, t := range p.listAll() {
					_ = t.received
				}
			}
		}
	})
	const most = 100
	var in []*execution
	for n := range 20_000 {
		own := &execution{received: time.Now()}
		own.entry = p.addEntry(own, int64(len(in)))
		in = append(in, own)
		if len(in) > most {
			// Neither the oldest nor the newest: some stay for a long time.
			at := 7 * n % most
			in[at].entry.Store(nil)
			in = append(in[:at], in[at+1:]...)
		}
	}
	close(stop)
	looking.Wait()
	found := make(map[*execution]bool)
	for _, own := range p.listAll() {
		found[own] = true
	}
	for _, own := range in {
		if !found[own] {
			t.Fatal("one in flight is missing")
		}
	}
	if len(found) != len(in) {
		t.Errorf("%d are there, of %d", len(found), len(in))
	}
	if n := len(*p.entries.Load()); n > 2*(sparse+1)*most {
		t.Errorf("%d entries for %d", n, most)
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
