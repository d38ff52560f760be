package memory_test

import (
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
	"github.com/drover-run/drover/triggers/triggertest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
		const lease = 100 * time.Millisecond
		q := memory.New(lease)
		t.Cleanup(q.Close)
		return &triggertest.Source{
			Lease: lease,
			// Messages with an expired lease are redelivered after those that are ready.
			Reorders: true,
			Open: func(t testing.TB) triggers.Trigger {
				tr := q.Trigger()
				if o.Ordered {
					tr = triggers.Ordered(tr)
				}
				t.Cleanup(func() { _ = tr.Close(t.Context()) })
				return tr
			},
			Send: func(_ testing.TB, ms ...triggers.Message) {
				for _, m := range ms {
					q.Send(m)
				}
			},
			Crash: func(t testing.TB, tr triggers.Trigger) {
				if err := tr.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			Dead: func(testing.TB) []triggertest.Dead {
				var out []triggertest.Dead
				for _, d := range q.Dead() {
					out = append(out, triggertest.Dead{
						Body: d.Message.Body, Attributes: d.Message.Attributes, Attempts: d.Message.Attempt,
						Reason: d.Verdict.Reason, Detail: d.Verdict.Detail, Function: d.Verdict.Function,
					})
				}
				return out
			},
		}
	})
}
