package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// These tests run in a synctest bubble: time advances only when all goroutines wait, so delays are
// exact and nothing sleeps.

type testBed struct {
	t        *testing.T
	queue    *memory.Queue
	slots    *handlers.Slots
	function *Function
	log      bytes.Buffer

	stopReceiving, stopWorking, stopSettling context.CancelFunc
	stopOutputs                              func()
	ended                                    chan error
}

func testFunction(name string, h handlers.Handler, tr triggers.Trigger, share *handlers.Share, log *slog.Logger) *Function {
	return New(Config{
		Name: name, Handler: h, Trigger: tr, Share: share, Log: log,
		Timeout: time.Minute, MaxBody: 1 << 20,
		Retry: Retry{MaxAttempts: 3, Initial: time.Second, Max: time.Minute},
		Stats: new(Stats),
	})
}

func start(t *testing.T, concurrency int, f handlers.Func) *testBed {
	b := makeBed(t, concurrency, f)
	b.run()
	return b
}

// makeBed is start, but does not call Run.
func makeBed(t *testing.T, concurrency int, f handlers.Func) *testBed {
	b := &testBed{t: t, queue: memory.New(time.Hour), slots: handlers.NewSlots(concurrency), ended: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.function = testFunction("f", f, b.queue.Trigger(), b.slots.Share(0), log.With("function", "f"))
	return b
}

func (b *testBed) run() {
	var receiving, working, settling context.Context
	receiving, b.stopReceiving = context.WithCancel(context.Background())
	working, b.stopWorking = context.WithCancel(context.Background())
	settling, b.stopSettling = context.WithCancel(context.Background())
	go func() { b.ended <- b.function.Run(receiving, working, settling) }()
}

func (b *testBed) send(bodies ...string) {
	for _, body := range bodies {
		b.queue.Send(triggers.Message{Body: []byte(body)})
	}
}

// stop drains, and returns the error of Run.
func (b *testBed) stop() error {
	b.stopReceiving()
	err := <-b.ended
	b.stopWorking()
	b.stopSettling()
	if b.stopOutputs != nil {
		b.stopOutputs()
	}
	b.queue.Close()
	return err
}

func (b *testBed) backlog() int64 {
	got, err := b.function.Trigger.Backlog(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return got.Ready
}

func (b *testBed) wantCounts(done, retried, rejected, released int64) {
	b.t.Helper()
	s := b.function.Stats.ReadCounts()
	if s.Done != done || s.Retried != retried || s.Rejected != rejected || s.Released != released {
		b.t.Errorf("done %d, retried %d, rejected %d, released %d; want %d, %d, %d, %d",
			s.Done, s.Retried, s.Rejected, s.Released, done, retried, rejected, released)
	}
	if sum := s.Done + s.Retried + s.Rejected + s.Released + s.Abandoned + s.InFlight; s.Received != sum {
		b.t.Errorf("received %d, accounted for %d", s.Received, sum)
	}
}

func TestEveryMessageIsHandledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[string]int{}
		b := start(t, 10, func(_ context.Context, m *triggers.Message) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[string(m.Body)]++
			return nil, nil
		})
		for i := range 100 {
			b.send(fmt.Sprint(i))
		}
		synctest.Wait()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		for body, n := range seen {
			if n != 1 {
				t.Errorf("%s was handled %d times", body, n)
			}
		}
		if len(seen) != 100 {
			t.Errorf("%d of 100 messages were handled", len(seen))
		}
		b.wantCounts(100, 0, 0, 0)
	})
}

func TestNoMoreInFlightThanSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		b := start(t, 3, func(context.Context, *triggers.Message) ([]byte, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return nil, nil
		})
		b.send(strings.Split("1 2 3 4 5 6 7 8 9", " ")...)
		synctest.Wait()
		if got := b.backlog(); got != 6 {
			t.Errorf("%d messages wait at the source, want 6: three slots, three received", got)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if most.Load() != 3 {
			t.Errorf("%d at once, want 3", most.Load())
		}
		_ = b.stop()
		b.wantCounts(9, 0, 0, 0)
	})
}

func TestRetriesBackOffAndEndInTheDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begin := time.Now()
		b := start(t, 1, func(_ context.Context, m *triggers.Message) ([]byte, error) {
			at = append(at, time.Since(begin))
			if m.Attempt != len(at) {
				t.Errorf("attempt %d, want %d", m.Attempt, len(at))
			}
			return nil, &handlers.Failure{Summary: "ValueError: no", Detail: "Traceback: line 7"}
		})
		b.send("bad")
		time.Sleep(time.Minute)
		synctest.Wait()
		_ = b.stop()
		want := []time.Duration{0, time.Second, 3 * time.Second}
		if fmt.Sprint(at) != fmt.Sprint(want) {
			t.Errorf("attempts at %v, want %v", at, want)
		}
		dead := b.queue.Dead()
		if len(dead) != 1 {
			t.Fatalf("%d dead letters, want 1", len(dead))
		}
		v := dead[0].Verdict
		if v.Reason != "failed 3 times, the last time with: ValueError: no" || v.Detail != "Traceback: line 7" || v.Function != "f" {
			t.Errorf("the dead letter says %+v", v)
		}
		b.wantCounts(0, 2, 1, 0)
		for _, want := range []string{"Traceback: line 7", "retry_in=1s", "retry_in=2s", "level=ERROR"} {
			if !strings.Contains(b.log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, b.log.String())
			}
		}
	})
}

func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		name    string
		fail    func() error
		attempt int
		want    triggers.Verdict
	}{
		{"done", func() error { return nil }, 1, triggers.Verdict{Kind: triggers.Done}},
		{"an error", func() error { return errors.New("no") }, 2, triggers.Verdict{Kind: triggers.Retry, Delay: 2 * time.Second}},
		{"rejected", func() error { return handlers.Reject(errors.New("no")) }, 1,
			triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"}},
		{"rejected, wrapped", func() error { return fmt.Errorf("in f: %w", handlers.Reject(errors.New("no"))) }, 1,
			triggers.Verdict{Kind: triggers.Reject, Reason: "in f: no", Function: "f"}},
		{"a delay asked for", func() error { return handlers.RetryAfter(time.Hour, errors.New("busy")) }, 1,
			triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour}},
		{"a delay asked for, but no attempt left", func() error { return handlers.RetryAfter(time.Hour, errors.New("busy")) }, 3,
			triggers.Verdict{Kind: triggers.Reject, Reason: "failed 3 times, the last time with: busy", Function: "f"}},
		{"not tried", func() error { return fmt.Errorf("worker went: %w", handlers.ErrNotTried) }, 3, triggers.Verdict{Kind: triggers.Release}},
		{"does not load", func() error { return &handlers.LoadError{Function: "f", Summary: "no module"} }, 3,
			triggers.Verdict{Kind: triggers.Release}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := testFunction("f", nil, nil, nil, slog.New(slog.DiscardHandler))
			if got := f.judgeResult(t.Context(), &triggers.Message{Attempt: test.attempt}, test.fail()); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		f := testFunction("f", nil, nil, nil, slog.New(slog.DiscardHandler))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		got := f.judgeResult(ended, &triggers.Message{Attempt: 3}, errors.New("connection closed"))
		if got.Kind != triggers.Release {
			t.Errorf("%v, want release", got.Kind)
		}
	})
}

func TestRetryDelay(t *testing.T) {
	retry := Retry{Initial: time.Second, Max: 10 * time.Second}
	for attempt, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 900: 10 * time.Second} {
		if got := retryDelay(retry, attempt); got != want {
			t.Errorf("after attempt %d: %v, want %v", attempt, got, want)
		}
	}
	retry.Jitter = 0.5
	different := map[time.Duration]bool{}
	for range 50 {
		got := retryDelay(retry, 2)
		if got < time.Second || got > 3*time.Second {
			t.Errorf("2s with a jitter of a half gave %v", got)
		}
		different[got] = true
	}
	if len(different) < 2 {
		t.Error("the jitter does nothing")
	}
}

func TestATimeoutIsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
			if m.Attempt > 1 {
				return nil, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		b.send("slow")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		_ = b.stop()
		b.wantCounts(1, 1, 0, 0)
		if !strings.Contains(b.log.String(), "timed out after 1m0s") {
			t.Errorf("the log doesn't tell the timeout:\n%s", b.log.String())
		}
	})
}

// A handler's report of the code's position at the timeout is part of the failure, in the log and
// in the dead letters.
func TestATimeoutTellsWhereTheCodeWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1, func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("%w, %w", context.Cause(ctx), &handlers.Failure{Summary: "Timeout", Detail: "line 7, in charge"})
		})
		b.send("slow")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		_ = b.stop()
		if n := strings.Count(b.log.String(), "line 7, in charge"); n < 2 || strings.Contains(b.log.String(), "the function's timeout") {
			t.Errorf("the log of each attempt does not tell where the code was:\n%s", b.log.String())
		}
		dead := b.queue.Dead()
		if len(dead) != 1 || dead[0].Verdict.Detail != "line 7, in charge" || !strings.HasSuffix(dead[0].Verdict.Reason, "timed out after 1m0s") {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

func TestALargeBodyIsRejectedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1, func(context.Context, *triggers.Message) ([]byte, error) {
			t.Error("the function saw it")
			return nil, nil
		})
		b.send(strings.Repeat("x", 1<<20+1))
		synctest.Wait()
		_ = b.stop()
		dead := b.queue.Dead()
		if len(dead) != 1 || !strings.Contains(dead[0].Verdict.Reason, "1048577 bytes, more than max_body (1048576)") {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

func TestAPanicIsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1, func(_ context.Context, m *triggers.Message) ([]byte, error) {
			if m.Attempt == 1 {
				panic("at the disco")
			}
			return nil, nil
		})
		b.send("x")
		time.Sleep(time.Minute)
		synctest.Wait()
		_ = b.stop()
		b.wantCounts(1, 1, 0, 0)
		if !strings.Contains(b.log.String(), "panic: at the disco") || !strings.Contains(b.log.String(), "dispatcher_test.go") {
			t.Errorf("the log lacks the panic or its stack:\n%s", b.log.String())
		}
	})
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 2, func(context.Context, *triggers.Message) ([]byte, error) {
			time.Sleep(10 * time.Second)
			return nil, nil
		})
		b.send("1", "2", "3")
		synctest.Wait()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(2, 0, 0, 0)
		if got := b.backlog(); got != 1 {
			t.Errorf("%d at the source, want the third", got)
		}
	})
}

func TestCutShortIsReleasedUncharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 2, func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
			<-ctx.Done()
			return nil, errors.New("connection closed")
		})
		b.send("1")
		synctest.Wait()
		b.stopReceiving()
		b.stopWorking()
		_ = b.stop()
		b.wantCounts(0, 0, 0, 1)
		got, err := b.queue.Trigger().Receive(t.Context(), 1)
		if err != nil || got[0].Message.Attempt != 1 {
			t.Errorf("it came back as %+v, %v; want attempt 1", got, err)
		}
	})
}

func TestCodeThatDoesNotLoadStopsTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1, func(context.Context, *triggers.Message) ([]byte, error) {
			return nil, &handlers.LoadError{Function: "f", Summary: "ModuleNotFoundError: No module named 'pil'"}
		})
		b.send("1", "2")
		var loadError *handlers.LoadError
		if err := <-b.ended; !errors.As(err, &loadError) {
			t.Errorf("run returned %v, want the load error", err)
		}
		b.stopWorking()
		b.wantCounts(0, 0, 0, 1)
		if got := b.backlog(); got != 2 {
			t.Errorf("%d at the source, want both", got)
		}
		b.queue.Close()
	})
}

// flaky is a source whose first receives or settlements fail, as if it was unreachable.
type flaky struct {
	triggers.Trigger
	receives, settles int
}

func (f *flaky) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	if f.receives > 0 {
		f.receives--
		return nil, errors.New("connection refused")
	}
	got, err := f.Trigger.Receive(ctx, max)
	for i, d := range got {
		got[i] = triggers.NewDelivery(d.Message, &flakyLease{f, d})
	}
	return got, err
}

type flakyLease struct {
	f *flaky
	d *triggers.Delivery
}

func (l *flakyLease) Settle(ctx context.Context, _ *triggers.Message, v triggers.Verdict) error {
	if l.f.settles > 0 {
		l.f.settles--
		return errors.New("connection refused")
	}
	return l.d.Settle(ctx, v)
}

func TestASourceThatGoesAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &testBed{t: t, queue: memory.New(time.Hour), ended: make(chan error, 1)}
		source := &flaky{Trigger: b.queue.Trigger(), receives: 5, settles: 4}
		runs := 0
		b.function = testFunction("f", handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) {
			runs++
			return nil, nil
		}), source, handlers.NewSlots(1).Share(0), slog.New(slog.NewTextHandler(&b.log, nil)))
		b.send("x")
		b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		_ = b.stop()
		b.wantCounts(1, 0, 0, 0)
		if runs != 1 {
			t.Errorf("the function ran %d times; a settlement that fails must not run it again", runs)
		}
		if got := strings.Count(b.log.String(), "cannot receive"); got != 1 {
			t.Errorf("the same error was logged %d times, want once:\n%s", got, b.log.String())
		}
		if !strings.Contains(b.log.String(), "receiving again") {
			t.Errorf("the log doesn't tell the recovery:\n%s", b.log.String())
		}
	})
}

func TestAFunctionOfThePoolGetsTheSlotsOfAnIdleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := handlers.NewSlots(2)
		idle, busy := memory.New(time.Hour), memory.New(time.Hour)
		slow := handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, nil
		})
		log := slog.New(slog.DiscardHandler)
		first := testFunction("idle", slow, idle.Trigger(), slots.Share(0), log)
		second := testFunction("busy", slow, busy.Trigger(), slots.Share(0), log)
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = first.Run(ctx, t.Context(), t.Context()) })
		synctest.Wait() // the first function holds both slots, in an idle Receive
		wait.Go(func() { _ = second.Run(ctx, t.Context(), t.Context()) })
		for range 20 {
			busy.Send(triggers.Message{})
		}
		idle.Send(triggers.Message{})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if done := second.Stats.done.Load(); done != 20 {
			t.Errorf("the busy function did %d of 20", done)
		}
		if done := first.Stats.done.Load(); done != 1 {
			t.Errorf("the idle function's only message was done %d times", done)
		}
		cancel()
		wait.Wait()
	})
}
