package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/triggers"
)

// holding is a source that has some messages prefetched.
type holding struct {
	triggers.Trigger
	held   []*triggers.Delivery
	drains int
}

func (h *holding) Drain(_ context.Context, max int) ([]*triggers.Delivery, error) {
	h.drains++
	n := min(max, len(h.held))
	out := h.held[:n]
	h.held = h.held[n:]
	return out, nil
}

// At a stop, prefetched messages run as far as slots allow, and not if no worker can run them.
func TestPrefetchedMessagesRunAtAStop(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(b *testBed)
		takes  time.Duration // how long a message takes
		ran    int64
		within time.Duration
	}{
		{"it runs", func(*testBed) {}, 100 * time.Millisecond, 5, time.Second},
		{"a paused function", func(b *testBed) { b.function.SetPaused(true, time.Time{}) }, 0, 0, 0},
		{"no room", func(b *testBed) { b.slots.Resize(0) }, 0, 0, 0},
		{"it takes too long", func(*testBed) {}, 1500 * time.Millisecond, 4, 4 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := makeBed(t, 2, func(context.Context, *triggers.Message) ([]byte, error) {
					time.Sleep(c.takes)
					return nil, nil
				})
				inner := b.function.Trigger
				source := &holding{Trigger: inner}
				b.send("1", "2", "3", "4", "5")
				for len(source.held) < 5 {
					got, err := inner.Receive(t.Context(), 5)
					if err != nil {
						t.Fatal(err)
					}
					source.held = append(source.held, got...)
				}
				b.function.Trigger = source
				b.run()
				synctest.Wait()
				c.spoil(b)
				began := time.Now()
				if err := b.stop(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > c.within {
					t.Errorf("the stop took %v", took)
				}
				b.wantCounts(c.ran, 0, 0, 0)
				for _, d := range source.held {
					_ = d.Settle(context.Background(), triggers.Verdict{Kind: triggers.Release})
				}
			})
		})
	}
}
