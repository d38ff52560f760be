package dispatch

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

type testKey struct{}

// waitingSender is the lease of a message whose sender waits for the result.
type waitingSender struct {
	refuse  error
	events  []string
	settled chan triggers.Verdict
}

func (w *waitingSender) Reply(_ context.Context, body []byte, properties triggers.Properties) error {
	w.events = append(w.events, "reply "+string(body)+properties[triggers.HTTPStatus])
	return w.refuse
}

func (w *waitingSender) ReplyStream(_ context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	w.events = append(w.events, "stream "+properties[triggers.HTTPStatus])
	return w, nil
}

func (w *waitingSender) Write(p []byte) (int, error) {
	w.events = append(w.events, "part "+string(p))
	return len(p), nil
}

func (w *waitingSender) Close() error {
	w.events = append(w.events, "end")
	return nil
}

func (w *waitingSender) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	w.settled <- v
	return nil
}

func TestReplies(t *testing.T) {
	for name, c := range map[string]struct {
		function handlers.Func
		refuse   error
		events   string
		kind     triggers.Kind
		reason   string
	}{
		"result": {func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
			handlers.Respond(ctx, 201)
			return []byte("body"), nil
		}, nil, "reply body201", triggers.Done, ""},
		"nothing":  {func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, nil, "reply ", triggers.Done, ""},
		"failure":  {func(context.Context, *triggers.Message) ([]byte, error) { return []byte("x"), errors.New("no luck") }, nil, "", triggers.Retry, ""},
		"no reply": {func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, errors.New("a line break"), "reply ", triggers.Reject, "a line break"},
		"stream": {func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
			w, err := handlers.ReplyStream(context.WithValue(ctx, testKey{}, 1), handlers.ResponseProperties(206))
			if err != nil {
				return nil, err
			}
			_, err = w.Write([]byte("x"))
			return nil, errors.Join(err, w.Close())
		}, nil, "stream 206,part x,end", triggers.Done, ""},
		"stream that fails": {func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
			_, err := handlers.ReplyStream(ctx, handlers.ResponseProperties(206))
			return nil, errors.Join(err, handlers.ErrRunAgain)
		}, nil, "stream 206", triggers.Release, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, 1, c.function)
				synctest.Wait()
				sender := &waitingSender{refuse: c.refuse, settled: make(chan triggers.Verdict, 1)}
				if err := b.function.RunExtra(triggers.NewDelivery(&triggers.Message{ID: "1", Attempt: 1}, sender)); err != nil {
					t.Fatal(err)
				}
				v := <-sender.settled
				if v.Kind != c.kind || v.Reason != c.reason || strings.Join(sender.events, ",") != c.events {
					t.Errorf("%v %q after %v", v.Kind, v.Reason, sender.events)
				}
				if err := b.stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A message that is received in another way waits for a slot like any other, and a stop waits for
// it.
func TestExtraRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := makeBed(t, 1, func(context.Context, *triggers.Message) ([]byte, error) {
			<-release
			return nil, nil
		})
		first := &waitingSender{settled: make(chan triggers.Verdict, 2)}
		run := func() error { return b.function.RunExtra(triggers.NewDelivery(&triggers.Message{Attempt: 1}, first)) }
		if err := run(); !errors.Is(err, errNotReceiving) {
			t.Errorf("before the start: %v", err)
		}
		b.run()
		synctest.Wait()
		if err := errors.Join(run(), run()); err != nil {
			t.Fatal(err)
		}
		b.stopReceiving()
		synctest.Wait()
		if err := run(); !errors.Is(err, errNotReceiving) {
			t.Errorf("during a stop: %v", err)
		}
		close(release)
		for range 2 {
			if v := <-first.settled; v.Kind != triggers.Done {
				t.Errorf("%v", v)
			}
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(2, 0, 0, 0)
		if _, err := handlers.ReplyStream(t.Context(), nil); err == nil {
			t.Error("a context of no call can stream")
		}
	})
}

// While an output is unreachable, a waiting sender is answered after some time, and not as if the
// output had the result.
func TestTheSenderOfAResultThatCannotBeSent(t *testing.T) {
	for _, outputs := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b, places := sending(t, outputs)
			places[0].failWith(errAway)
			synctest.Wait()
			sender := &waitingSender{settled: make(chan triggers.Verdict, 1)}
			if err := b.function.RunExtra(triggers.NewDelivery(&triggers.Message{ID: "1", Body: []byte("a"), Attempt: 3}, sender)); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			v := <-sender.settled
			if v.Kind != triggers.Reject || !strings.Contains(v.Reason, "was not sent to subject place 0 on c in 10s") || !strings.Contains(v.Reason, errAway.Error()) || len(sender.events) > 0 {
				t.Errorf("%v %q after %v", v.Kind, v.Reason, sender.events)
			}
			if took := time.Since(began); took != replyOutputLimit {
				t.Errorf("it took %v", took)
			}
			places[0].failWith(nil)
			_ = b.stop()
		})
	}
}
