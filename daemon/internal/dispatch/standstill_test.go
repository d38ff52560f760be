package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/triggers"
)

// A call that times out while the daemon stands still uses no attempt, for every kind of handler.
// Without a standstill it uses one.
func TestAStandstillChargesNobody(t *testing.T) {
	for _, test := range []struct {
		name    string
		gap     time.Duration
		retried int64
	}{{"it stood still", 30 * time.Second, 0}, {"it did not", 0, 1}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				still := new(Standstill)
				tries := 0
				b := makeBed(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
					if tries++; tries == 2 {
						return nil, nil
					}
					still.last.Store(int64(time.Since(processStart)))
					<-ctx.Done()
					still.last.Store(int64(time.Since(processStart) - test.gap)) // the last check before the daemon stood still
					return nil, ctx.Err()
				})
				still.last.Store(int64(time.Since(processStart)))
				b.function.Standstill = still
				b.run()
				b.send("x")
				for b.function.Stats.ReadCounts().Done == 0 {
					time.Sleep(time.Second)
				}
				if err := b.stop(); err != nil {
					t.Fatal(err)
				}
				b.wantCounts(1, test.retried, 0, 0)
			})
		})
	}
}

func TestAStandstillIsCountedOnce(t *testing.T) {
	s := new(Standstill)
	s.checkGap(standstillTick)
	s.checkGap(2*standstillTick + 300*time.Millisecond) // a busy machine
	if got := s.totalAt(3 * standstillTick); got != 0 {
		t.Errorf("%v without a standstill", got)
	}
	s.last.Store(1)
	if got := s.totalAt(10*time.Second + standstillTick + 1); got != 10*time.Second {
		t.Errorf("%v before the check", got)
	}
	s.checkGap(10*time.Second + standstillTick + 1)
	if got := s.totalAt(10*time.Second + standstillTick + 1); got != 10*time.Second {
		t.Errorf("%v after the check", got)
	}
	if got := (*Standstill)(nil).totalAt(time.Hour); got != 0 {
		t.Errorf("%v of none", got)
	}
}
