package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Each failure is reported to the owner of the settings, with the epoch in which the call started.
// Calls that the owner releases use no attempt.
func TestFailuresUnderSettings(t *testing.T) {
	for name, release := range map[string]bool{"the settings are to blame": true, "the function is": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reported []FailedCall
				calls := 0
				b := makeBed(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
					if calls++; calls == 1 {
						ReportWorkerDied(ctx, errors.New("killed"))
						return nil, errors.New("no")
					}
					return nil, nil
				})
				var epochs atomic.Pointer[Epoch]
				epochs.Store(NewEpoch(7, 2, func(c FailedCall) bool {
					reported = append(reported, c)
					return release
				}))
				b.function.Epochs, b.function.PoolIndex = &epochs, 1
				b.run()
				b.send("x")
				time.Sleep(time.Minute)
				synctest.Wait()
				if err := b.stop(); err != nil {
					t.Error(err)
				}
				if len(reported) != 2 || reported[0].Err.Error() != "killed" || reported[1].Err.Error() != "no" {
					t.Fatalf("reported: %+v", reported)
				}
				if c := reported[1]; c.Epoch != 7 || c.PoolIndex != 1 || c.Function != "f" || c.Message == "" || c.Attempt != 1 || c.Final {
					t.Errorf("reported: %+v", c)
				}
				if release {
					b.wantCounts(1, 0, 0, 1)
				} else {
					b.wantCounts(1, 1, 0, 0)
				}
				if n := epochs.Load().PassedCalls(1); n != 1 {
					t.Errorf("%d calls passed, want 1", n)
				}
			})
		})
	}
}

// A successful call counts only while its epoch is current. Errors that the function did not cause
// are not reported.
func TestCallsOfAnotherEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := func(c FailedCall) bool {
			t.Errorf("reported: %+v", c)
			return false
		}
		first, second := NewEpoch(1, 1, failed), NewEpoch(2, 1, failed)
		var epochs atomic.Pointer[Epoch]
		epochs.Store(first)
		calls := 0
		b := makeBed(t, 1, func(context.Context, *triggers.Message) ([]byte, error) {
			epochs.Store(second)
			if calls++; calls == 2 {
				return nil, handlers.ErrNotTried
			}
			return nil, nil
		})
		b.function.Epochs = &epochs
		b.run()
		b.send("1", "2")
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(2, 0, 0, 1)
		if one, two := first.PassedCalls(0), second.PassedCalls(0); one != 0 || two != 1 {
			t.Errorf("%d passed in the first epoch, %d in the second; want 0 and 1", one, two)
		}
	})
}
