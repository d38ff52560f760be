package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// startWith is start with messages that are in the source already, so that they are received at
// once.
func startWith(t *testing.T, h handlers.Handler, n int) *testBed {
	b := &testBed{t: t, queue: memory.New(time.Hour), ended: make(chan error, 1)}
	b.function = testFunction("f", h, b.queue.Trigger(), handlers.NewSlots(n).Share(0), slog.New(slog.DiscardHandler))
	for i := range n {
		b.send(strconv.Itoa(i))
	}
	b.run()
	return b
}

func TestMessagesOfOneBatchRunAtOnce(t *testing.T) {
	const n = 100
	synctest.Test(t, func(t *testing.T) {
		var here sync.WaitGroup
		here.Add(n)
		b := startWith(t, handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) {
			here.Done()
			here.Wait() // passes only if all executions run at once
			return nil, nil
		}), n)
		here.Wait()
		synctest.Wait()
		b.wantCounts(n, 0, 0, 0)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestALongTurnHoldsUpNobody(t *testing.T) {
	const n = 100
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := startWith(t, handlers.Func(func(_ context.Context, m *triggers.Message) ([]byte, error) {
			if i, err := strconv.Atoi(string(m.Body)); err != nil || i%10 == 0 {
				<-release
			}
			return nil, nil
		}), n)
		synctest.Wait()
		b.wantCounts(n-n/10, 0, 0, 0)
		close(release)
		synctest.Wait()
		b.wantCounts(n, 0, 0, 0)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

// starter is a handler that answers when the test requires it.
type starter struct {
	handlers.Func
	mu      sync.Mutex
	started map[string]func(error) // by body
}

func (s *starter) Start(ctx context.Context, m *triggers.Message, to handlers.ResultSink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[string(m.Body)] = func(err error) {
		if errors.Is(err, context.DeadlineExceeded) {
			<-ctx.Done()
			err = ctx.Err()
		}
		to.SetResult(nil, err)
	}
}

func TestAHandlerThatAnswersLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &starter{started: make(map[string]func(error))}
		b := startWith(t, h, 5)
		synctest.Wait()
		b.wantCounts(0, 0, 0, 0)
		b.stopReceiving()
		h.started["0"](nil)
		h.started["1"](errors.New("no luck"))
		h.started["2"](handlers.Reject(errors.New("no use")))
		synctest.Wait()
		b.wantCounts(1, 1, 1, 0)
		h.started["3"](context.DeadlineExceeded)
		synctest.Wait()
		b.wantCounts(1, 2, 1, 0)
		select {
		case err := <-b.ended:
			t.Fatalf("the run ended with a message in flight: %v", err)
		default:
		}
		b.stopWorking()
		h.started["4"](errors.New("cut short"))
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(1, 2, 1, 1)
	})
}

func TestALargeBodyIsNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &starter{started: make(map[string]func(error))}
		b := startWith(t, h, 1)
		b.queue.Send(triggers.Message{Body: make([]byte, 2<<20)})
		synctest.Wait()
		h.started["0"](nil)
		synctest.Wait()
		b.wantCounts(1, 0, 1, 0)
		if len(h.started) != 1 {
			t.Errorf("%d were started", len(h.started))
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}
