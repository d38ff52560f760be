package autoscale

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/configs/scaling"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// mute is a source that answers requests for its backlog with fixed values.
type mute struct {
	triggers.Trigger
	backlog triggers.Backlog
	err     error
}

func (m mute) Backlog(context.Context) (triggers.Backlog, error) { return m.backlog, m.err }

func TestAddBacklog(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		source mute
		want   scaler.Counts
	}{
		"not reported": {mute{err: triggers.ErrUnknown}, scaler.Counts{Backlog: scaler.Unreadable}},
		"not there":    {mute{err: errors.New("no route")}, scaler.Counts{Backlog: scaler.Unreadable}},
		"nothing":      {mute{}, scaler.Counts{}},
		"some":         {mute{backlog: triggers.Backlog{Ready: 5, Oldest: now.Add(-time.Minute)}}, scaler.Counts{Backlog: 5, Oldest: time.Minute}},
		"or more":      {mute{backlog: triggers.Backlog{Ready: 5, AtLeast: true}}, scaler.Counts{Backlog: 5, AtLeast: true}},
		"clocks apart": {mute{backlog: triggers.Backlog{Ready: 5, Oldest: now.Add(time.Hour)}}, scaler.Counts{Backlog: 5}},
	} {
		var got scaler.Counts
		AddBacklog(t.Context(), c.source, now, &got)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// Scaling and tuning share requests, and a slow source does not delay the others.
func TestReadersShareABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := make(map[string]int)
		b := &Backlogs{Request: func(ctx context.Context, function string) (triggers.Backlog, error) {
			if function == "slow" {
				<-ctx.Done()
				return triggers.Backlog{}, ctx.Err()
			}
			requests[function]++
			return triggers.Backlog{Ready: int64(requests[function]), AtLeast: true}, nil
		}}
		ctx := t.Context()
		slow := make(chan int64)
		go func() { slow <- b.ReadBacklog(ctx, "slow", 0).Ready }()
		synctest.Wait()
		for range 10 { // seconds
			var c scaler.Counts
			b.ReadBacklog(ctx, "orders", scalingBacklogAge).addTo(&c, time.Now())
			if c.Backlog != int64(requests["orders"]) || !c.AtLeast {
				t.Errorf("scaling uses %+v", c)
			}
			for range 4 {
				time.Sleep(scaling.WorkersInterval / 4)
				if r := b.ReadBacklog(ctx, "orders", tuningBacklogAge); r.Ready != int64(requests["orders"]) {
					t.Errorf("tuning uses %+v", r)
				}
			}
		}
		if requests["orders"] != 10 {
			t.Errorf("%d requests in 10 seconds; want one each", requests["orders"])
		}
		if n := <-slow; n >= 0 {
			t.Errorf("the backlog of a source that does not answer is %d", n)
		}
	})
}
