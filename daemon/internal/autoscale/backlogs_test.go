package autoscale

import (
	"context"
	"errors"
	"testing"
	"time"

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
