package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// settled is a lease that keeps the verdict on one message.
type settled struct{ verdict triggers.Verdict }

func (s *settled) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	s.verdict = v
	return nil
}

// RunOne handles a message without a trigger, in the slot that its caller claimed.
func TestRunOne(t *testing.T) {
	b := makeBed(t, 1, func(_ context.Context, m *triggers.Message) ([]byte, error) {
		if string(m.Body) == "bad" {
			return []byte("half"), handlers.Reject(errors.New("no good"))
		}
		return m.Body, nil
	})
	defer b.queue.Close()
	for body, want := range map[string]triggers.Kind{"good": triggers.Done, "bad": triggers.Reject} {
		if err := b.function.Share.Claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		var to settled
		r := b.function.RunOne(t.Context(), triggers.NewDelivery(&triggers.Message{ID: "1", Attempt: 1, Body: []byte(body)}, &to))
		if to.verdict.Kind != want || (r.Err != nil) != (want == triggers.Reject) || want == triggers.Done && string(r.Output) != body {
			t.Errorf("%s: verdict %v, result %+v", body, to.verdict.Kind, r)
		}
		if used := b.function.Share.Used(); used != 0 {
			t.Errorf("%s: %d slots are still taken", body, used)
		}
	}
}

// OldestInFlight returns the oldest message in flight, and whether it has a slot.
func TestMessagesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := start(t, 2, func(context.Context, *triggers.Message) ([]byte, error) {
			<-release
			return nil, nil
		})
		if _, found := b.function.OldestInFlight(); found {
			t.Error("one is in flight before the first")
		}
		b.send("1")
		time.Sleep(time.Second)
		b.send("2")
		synctest.Wait()
		oldest, found := b.function.OldestInFlight()
		if !found || string(oldest.Message.Body) != "1" || time.Since(oldest.Received) != time.Second || oldest.Started.IsZero() || oldest.Blocked != "" {
			t.Errorf("the oldest is %+v, %v", oldest, found)
		}
		if again, found := b.function.FindInFlight(oldest.Message.ID); !found || again != oldest {
			t.Errorf("by its ID it is %+v, %v", again, found)
		}
		if _, found := b.function.FindInFlight("none"); found {
			t.Error("a message that does not exist is in flight")
		}
		close(release)
		synctest.Wait()
		if _, found := b.function.OldestInFlight(); found {
			t.Error("one is in flight after the last")
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}
