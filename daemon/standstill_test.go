package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/triggers"
)

// A daemon that stood still while a call was in flight does not charge it, whatever its
// handler is; one that did not does.
func TestAStandstillChargesNobody(t *testing.T) {
	for _, test := range []struct {
		name    string
		gap     time.Duration
		retried int64
	}{{"it stood still", 30 * time.Second, 0}, {"it did not", 0, 1}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				still := new(standstill)
				tries := 0
				b := makeBed(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
					if tries++; tries == 2 {
						return nil, nil
					}
					still.last.Store(int64(time.Since(birth)))
					<-ctx.Done()
					still.last.Store(int64(time.Since(birth) - test.gap)) // the last look before the daemon stood still
					return nil, ctx.Err()
				})
				still.last.Store(int64(time.Since(birth)))
				b.function.standstill = still
				b.run()
				b.send("x")
				for b.function.stats.status().Done == 0 {
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
	s := new(standstill)
	s.look(standstillTick)
	s.look(2*standstillTick + 300*time.Millisecond) // a busy machine
	if got := s.total(3 * standstillTick); got != 0 {
		t.Errorf("%v without a standstill", got)
	}
	s.last.Store(1)
	if got := s.total(10*time.Second + standstillTick + 1); got != 10*time.Second {
		t.Errorf("%v before the look", got)
	}
	s.look(10*time.Second + standstillTick + 1)
	if got := s.total(10*time.Second + standstillTick + 1); got != 10*time.Second {
		t.Errorf("%v after the look", got)
	}
	if got := (*standstill)(nil).total(time.Hour); got != 0 {
		t.Errorf("%v of none", got)
	}
}
