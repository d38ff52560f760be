package batches_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// Of 100 messages one is bad: only that one uses an attempt, and the others are done.
func TestOneBadMessageOfAHundred(t *testing.T) {
	for _, bad := range []string{"0", "37", "99"} {
		synctest.Test(t, func(t *testing.T) {
			b := startBed(t, 100, batches.Config{Size: 100, Min: 100, Window: time.Minute}, failsWith(bad))
			b.send(numbers(100)...)
			synctest.Wait()
			if err := b.stop(); err != nil {
				t.Error(err)
			}
			b.wantCounts(99, 0, 1, 0)
			if failed := b.function.Stats.ReadCounts().Failed; failed != 1 {
				t.Errorf("%d attempts failed, want 1", failed)
			}
			if dead := b.queue.Dead(); len(dead) != 1 || string(dead[0].Message.Body) != bad || !strings.Contains(dead[0].Verdict.Reason, errBad.Error()) {
				t.Errorf("dead letters: %+v", dead)
			}
			// Each half once, and both halves of the one with the bad message: 1 + 2 × log2(100).
			if n := len(b.sizes()); n > 15 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestAPanicIsTheFailureOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 8, batches.Config{Size: 8}, func(_ context.Context, bodies []string, _ []*triggers.Message) ([]handlers.Result, error) {
			if slices.Contains(bodies, "3") {
				panic("three")
			}
			return nil, nil
		})
		b.send(numbers(8)...)
		synctest.Wait()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(7, 0, 1, 0)
		if dead := b.queue.Dead(); len(dead) != 1 || !strings.Contains(dead[0].Verdict.Reason, "panic: three") || !strings.Contains(dead[0].Verdict.Detail, "verdicts_test.go") {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

func TestEachMessageHasItsVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts []int
		b := startBed(t, 4, batches.Config{Size: 4, Min: 4, Window: time.Second}, func(_ context.Context, bodies []string, messages []*triggers.Message) ([]handlers.Result, error) {
			out := make([]handlers.Result, len(bodies))
			for i, body := range bodies {
				switch {
				case body == "reject":
					out[i].Err = handlers.Reject(errBad)
				case body == "later" && messages[i].Attempt == 1:
					out[i].Err = handlers.RetryAfter(time.Hour, errBad)
				case body == "fail" && messages[i].Attempt < 3:
					attempts = append(attempts, messages[i].Attempt)
					out[i].Err = errBad
				}
			}
			return out, nil
		}, func(c *dispatch.Config) { c.Retry.MaxAttempts = 3 })
		b.send("reject", "later", "fail", "good")
		time.Sleep(59 * time.Minute)
		b.wantCounts(2, 3, 1, 0)
		time.Sleep(2 * time.Minute)
		b.wantCounts(3, 3, 1, 0)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(attempts, []int{1, 2}) {
			t.Errorf("the one that failed had the attempts %v", attempts)
		}
	})
}

// An explicit Retry is a verdict on all messages, for example while a service is down: the batch does
// not run again in halves.
func TestARetryOfAllMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 10, batches.Config{Size: 10, Min: 10, Window: time.Second}, func(_ context.Context, _ []string, messages []*triggers.Message) ([]handlers.Result, error) {
			if messages[0].Attempt == 1 {
				return nil, handlers.RetryAfter(time.Minute, errBad)
			}
			return nil, nil
		}, func(c *dispatch.Config) { c.Retry.MaxAttempts = 2 })
		b.send(numbers(10)...)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.wantSizes(10)
		b.wantCounts(0, 10, 0, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantCounts(10, 10, 0, 0)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A call that hangs times out with its batch, then with its halves, and finally alone.
func TestATimeoutIsThatOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 4, batches.Config{Size: 4, Min: 4, Window: 30 * time.Second}, func(ctx context.Context, bodies []string, _ []*triggers.Message) ([]handlers.Result, error) {
			if slices.Contains(bodies, "2") {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return nil, nil
		})
		b.send("0")
		time.Sleep(20 * time.Second) // the time in which it waits for others does not count
		b.send("1", "2", "3")
		time.Sleep(time.Minute - time.Second)
		synctest.Wait()
		b.wantSizes(4)
		time.Sleep(2*time.Minute + 2*time.Second)
		synctest.Wait()
		b.wantSizes(4, 2, 2, 1, 1)
		b.wantCounts(3, 0, 1, 0)
		if dead := b.queue.Dead(); len(dead) != 1 || string(dead[0].Message.Body) != "2" || !strings.Contains(dead[0].Verdict.Reason, "timed out after 1m0s") {
			t.Errorf("dead letters: %+v", dead)
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAStopReleasesABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 4, batches.Config{Size: 4, Min: 4, Window: time.Second}, func(ctx context.Context, _ []string, _ []*triggers.Message) ([]handlers.Result, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		b.send(numbers(4)...)
		time.Sleep(2 * time.Second)
		b.stopReceiving()
		synctest.Wait()
		b.stopWorking()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantSizes(4)
		b.wantCounts(0, 0, 0, 4)
	})
}

func TestCodeThatDoesNotLoadStopsTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 4, batches.Config{Size: 4}, func(context.Context, []string, []*triggers.Message) ([]handlers.Result, error) {
			return nil, &handlers.LoadError{Function: "f", Summary: "no"}
		})
		b.send(numbers(4)...)
		synctest.Wait()
		if err := b.stop(); err == nil || !strings.Contains(err.Error(), "does not load") {
			t.Error(err)
		}
		if got := b.sizes(); slices.Max(got) != got[0] || len(got) > 4 {
			t.Errorf("calls with %v messages", got)
		}
	})
}

// wholeResult is a handler whose calls have their own result.
type wholeResult struct{ handlers.BatchFunc }

func (w wholeResult) HandleBatch(ctx context.Context, messages []*triggers.Message) (handlers.BatchResult, error) {
	out, err := w.BatchFunc.HandleBatch(ctx, messages)
	out.Whole = handlers.Result{Output: fmt.Append(nil, "call of ", len(messages)), Properties: triggers.Properties{triggers.ContentType: "text/plain"}}
	return out, err
}

// slowSender accepts a message when it may.
type slowSender struct {
	may  chan error
	sent []string
	n    int64
}

func (s *slowSender) Send(_ context.Context, m *triggers.Message) error {
	if err := <-s.may; err != nil {
		return err
	}
	s.n++
	s.sent = append(s.sent, string(m.Body)+" "+m.Properties()[triggers.ContentType])
	return nil
}

func (s *slowSender) Flush(context.Context) error { return nil }

func (s *slowSender) ConfirmedCount() int64 { return s.n }

// The result of a call is sent before any of its messages is done; that of a message, before that
// message is. A result that can never be sent is a failure of the batch.
func TestResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, queue: memory.New(time.Hour), ended: make(chan error, 1)}
		to := &slowSender{may: make(chan error, 10)}
		output := dispatch.NewOutput(dispatch.OutputConfig{
			Name: "there", Lanes: 1, Log: slog.New(slog.DiscardHandler),
			Open: func(context.Context) (dispatch.Sender, func() error, error) {
				return to, func() error { return nil }, nil
			},
		})
		output.Start(context.Background())
		run := wholeResult{b.recorded(func(_ context.Context, bodies []string, _ []*triggers.Message) ([]handlers.Result, error) {
			out := make([]handlers.Result, len(bodies))
			for i, body := range bodies {
				if body == "own" {
					out[i].Output = []byte("of its own")
				}
			}
			return out, nil
		})}
		b.startWith(run, 4, batches.Config{Size: 4, Min: 3, Window: time.Second}, func(c *dispatch.Config) { c.Outputs = []*dispatch.Output{output} })
		b.send("a", "own", "b")
		synctest.Wait()
		b.wantSizes(3)
		b.wantCounts(0, 0, 0, 0)
		to.may <- nil
		synctest.Wait()
		b.wantCounts(2, 0, 0, 0)
		to.may <- nil
		synctest.Wait()
		b.wantCounts(3, 0, 0, 0)
		if want := []string{"call of 3 text/plain", "of its own "}; !slices.Equal(to.sent, want) {
			t.Errorf("sent %q, want %q", to.sent, want)
		}

		to.sent = nil
		to.may <- triggers.ErrTooLarge // the result of both
		to.may <- nil
		to.may <- triggers.ErrTooLarge // and of the second alone
		b.send("c", "d")
		time.Sleep(2 * time.Second)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantSizes(3, 2, 1, 1)
		b.wantCounts(4, 0, 1, 0)
		if want := []string{"call of 1 text/plain"}; !slices.Equal(to.sent, want) {
			t.Errorf("sent %q, want %q", to.sent, want)
		}
	})
}
