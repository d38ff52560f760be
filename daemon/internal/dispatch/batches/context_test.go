package batches

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

type keyType struct{}

// sending is the context of a message, and records sent messages.
type sending struct {
	context.Context
	sent []string
}

func (s *sending) Value(key any) any {
	if key == handlers.DescribedKey {
		return s
	}
	return s.Context.Value(key)
}

func (s *sending) Send(output string, body []byte, _ triggers.Properties) error {
	s.sent = append(s.sent, output+" "+string(body))
	return nil
}

// A call ends when the contexts of all its messages have ended, or at their deadline.
func TestTheContextOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := context.WithValue(t.Context(), keyType{}, "value")
		lost := errors.New("lost")
		first, endFirst := context.WithCancelCause(base)
		second, endSecond := context.WithCancelCause(base)
		to := &sending{Context: first}
		ctx, end := newBatchContext([]item{{ctx: to}, {ctx: second}})
		if ctx.Value(keyType{}) != "value" {
			t.Error("it does not have the values of the first message")
		}
		if err := handlers.Send(ctx, "there", []byte("x"), nil); err != nil || len(to.sent) != 1 || to.sent[0] != "there x" {
			t.Errorf("%q, %v", to.sent, err)
		}
		endFirst(lost)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Errorf("one message of two has ended: %v", ctx.Err())
		}
		endSecond(lost)
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), lost) {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
		end()

		late, cancel := context.WithTimeout(base, time.Minute)
		defer cancel()
		ctx, end = newBatchContext([]item{{ctx: base}, {ctx: late}})
		defer end()
		time.Sleep(time.Minute)
		synctest.Wait()
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("after the deadline: %v", ctx.Err())
		}
	})
}

// A message that is cancelled while it waits, since its lease was lost, does not run.
func TestAMessageThatIsCancelledWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		h := New(handlers.BatchFunc(func(_ context.Context, messages []*triggers.Message) ([]handlers.Result, error) {
			for _, m := range messages {
				ran = append(ran, m.ID)
			}
			return nil, nil
		}), Config{Size: 10, Min: 10, Window: time.Second, Concurrency: 10, Counts: new(Counts), Log: slog.New(slog.DiscardHandler)})
		lost, cancel := context.WithCancel(t.Context())
		var results [2]lastResult
		h.Start(lost, &triggers.Message{ID: "lost"}, &results[0])
		h.Start(t.Context(), &triggers.Message{ID: "kept"}, &results[1])
		cancel()
		time.Sleep(2 * time.Second)
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if !errors.Is(results[0].err, handlers.ErrNotTried) || results[1].err != nil || len(ran) != 1 || ran[0] != "kept" {
			t.Errorf("%v, %v, ran %q", results[0].err, results[1].err, ran)
		}
	})
}
