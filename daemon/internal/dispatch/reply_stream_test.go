package dispatch

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// patientSender is a waitingSender with a slow receiver: a Write lasts until its context ends.
type patientSender struct {
	waitingSender
	ctx context.Context
}

func (p *patientSender) ReplyStream(ctx context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	_, err := p.waitingSender.ReplyStream(ctx, properties)
	p.ctx = ctx
	return p, err
}

func (p *patientSender) Write(part []byte) (int, error) {
	if string(part) != "slow" {
		return p.waitingSender.Write(part)
	}
	<-p.ctx.Done()
	return 0, p.ctx.Err()
}

func (p *patientSender) Close() error {
	p.events = append(p.events, "end")
	return p.ctx.Err()
}

// The timeout of a function ends a part that a slow receiver does not read. The return of the
// function does not, because the end of the response is still to be sent.
func TestTheContextOfAStream(t *testing.T) {
	for part, want := range map[string]triggers.Kind{"fast": triggers.Done, "slow": triggers.Retry} {
		synctest.Test(t, func(t *testing.T) {
			b := makeBed(t, 1, func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
				w, err := handlers.ReplyStream(ctx, nil)
				if err == nil {
					_, err = io.WriteString(w, part)
				}
				return nil, err
			})
			b.function.Timeout = time.Second
			b.run()
			synctest.Wait()
			sender := &patientSender{waitingSender: waitingSender{settled: make(chan triggers.Verdict, 1)}}
			if err := b.function.RunExtra(triggers.NewDelivery(&triggers.Message{ID: "1", Attempt: 1}, sender)); err != nil {
				t.Fatal(err)
			}
			if v := <-sender.settled; v.Kind != want {
				t.Errorf("%s: %v after %v", part, v, sender.events)
			}
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A request that fails is a failure, also while settings are tried: it does not run again.
func TestARequestUnderSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := makeBed(t, 1, func(context.Context, *triggers.Message) ([]byte, error) { return nil, errors.New("no") })
		var epochs atomic.Pointer[Epoch]
		reported := 0
		epochs.Store(NewEpoch(7, 2, func(FailedCall) bool {
			reported++
			return true
		}))
		b.function.Epochs, b.function.PoolIndex = &epochs, 1
		b.run()
		synctest.Wait()
		sender := &waitingSender{settled: make(chan triggers.Verdict, 1)}
		if err := b.function.RunExtra(triggers.NewDelivery(&triggers.Message{ID: "1", Attempt: 1}, sender)); err != nil {
			t.Fatal(err)
		}
		if v := <-sender.settled; v.Kind != triggers.Retry || reported != 1 {
			t.Errorf("%v, reported %d times", v, reported)
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}
