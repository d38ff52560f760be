package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file is the whole life of a message: reserve, receive, handle, judge,
// settle. Nothing else turns an error into a verdict, settles, or backs off.

// maxBatch bounds one Receive; it is more than any source gives in one go.
const maxBatch = 4096

// function moves the messages of one function from its trigger through its
// handler. run is called once.
type function struct {
	name     string
	trigger  triggers.Trigger
	handler  handlers.Handler
	share    *handlers.Share
	timeout  time.Duration
	maxBody  int64
	retry    configs.Retry
	stats    *functionStats
	pool     *pool  // nil for Go functions
	describe string // the handler, for people
	log      *slog.Logger

	stopOnce sync.Once
	stopped  chan struct{} // closed when the function can't go on
	misload  error         // why; read after stopped is closed
}

// run receives until receiving ends or the function's code turns out not to
// load, and returns when everything that it received is settled. working ends
// what is in flight; settling, later than it, the settlements.
func (f *function) run(receiving, working, settling context.Context) error {
	receiving, cancel := context.WithCancel(receiving)
	defer cancel()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	inFlight.Go(func() {
		select {
		case <-f.stopped:
			cancel()
		case <-receiving.Done():
		}
	})

	pause := receiveBackOff()
	failing := ""
	for {
		n, err := f.share.Offer(receiving)
		if err != nil || f.hasStopped() {
			break
		}
		got, err := f.receive(receiving, min(n, maxBatch))
		if err != nil && receiving.Err() == nil {
			delay := pause.NextBackOff()
			if failing != err.Error() {
				failing = err.Error()
				f.log.Warn("cannot receive; will try until it works", "error", err, "retry_in", delay)
			}
			select {
			case <-time.After(delay):
			case <-receiving.Done():
			}
			continue
		}
		if failing != "" && len(got) > 0 {
			f.log.Info("receiving again")
			failing = ""
			pause.Reset()
		}
		f.stats.received.Add(int64(len(got)))
		taken := f.share.Take(len(got))
		for i, d := range got {
			slotted := i < taken || f.share.Claim(working) == nil
			inFlight.Go(func() { f.process(working, settling, d, slotted) })
		}
	}
	inFlight.Wait()
	select {
	case <-f.stopped:
		return f.misload
	default:
		return nil
	}
}

// receive waits for messages for the n slots that were offered. While it waits,
// other functions of the pool may take them all: then it returns nothing.
func (f *function) receive(receiving context.Context, n int) ([]*triggers.Delivery, error) {
	ctx, revoke := context.WithCancel(receiving)
	defer revoke()
	f.share.Park(revoke)
	got, err := f.trigger.Receive(ctx, n)
	f.share.Unpark()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return got, err
}

// process is one message's way from the trigger and back. It holds one slot, or
// none where a stop came before there was one.
func (f *function) process(working, settling context.Context, d *triggers.Delivery, slotted bool) {
	start := time.Now()
	err := handlers.ErrNotTried
	if slotted {
		defer f.share.Free(1)
		err = f.handle(working, d.Message, start)
	}
	v := f.judge(working, d.Message, err)
	took := time.Since(start)
	f.report(d.Message, v, err, took)
	f.settle(settling, d, v)
	f.stats.settled(v.Kind, err, took)
}

func (f *function) handle(working context.Context, m *triggers.Message, start time.Time) error {
	if size := int64(len(m.Body)); size > f.maxBody {
		return handlers.Reject(fmt.Errorf("the body has %d bytes, more than max_body (%d)", size, f.maxBody))
	}
	ctx := &attempt{Context: working, deadline: start.Add(f.timeout)}
	defer ctx.end()
	_, err := f.handler.Handle(ctx, m)
	// A function that came to its end in spite of the timeout is done.
	if err == nil || working.Err() != nil || ctx.Err() == nil || handlers.Rejected(err) {
		return err
	}
	if errors.Is(err, errTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("timed out after %v", f.timeout)
	}
	return fmt.Errorf("timed out after %v: %w", f.timeout, err)
}

// judge turns what a handler returned into the verdict on the message.
func (f *function) judge(working context.Context, m *triggers.Message, err error) triggers.Verdict {
	var misloaded *handlers.Misloaded
	switch {
	case err == nil:
		return triggers.Verdict{Kind: triggers.Done}
	case handlers.Rejected(err):
		return f.reject(err.Error(), err)
	case errors.As(err, &misloaded):
		f.stop(misloaded)
		return triggers.Verdict{Kind: triggers.Release}
	case errors.Is(err, handlers.ErrNotTried), working.Err() != nil:
		// Cut short by the stop, whatever the function made of it.
		return triggers.Verdict{Kind: triggers.Release}
	case m.Attempt >= f.retry.MaxAttempts:
		return f.reject(fmt.Sprintf("failed %d times, the last time with: %v", m.Attempt, err), err)
	}
	delay, asked := handlers.RetryDelay(err)
	if !asked {
		delay = retryDelay(f.retry, m.Attempt)
	}
	return triggers.Verdict{Kind: triggers.Retry, Delay: delay}
}

func (f *function) reject(reason string, err error) triggers.Verdict {
	v := triggers.Verdict{Kind: triggers.Reject, Reason: reason, Function: f.name}
	var failure *handlers.Failure
	if errors.As(err, &failure) {
		v.Detail = failure.Detail
	}
	return v
}

// settle carries the verdict out. A source that can't take it now is asked
// again until settling ends; then the loan runs out and the message comes back.
func (f *function) settle(settling context.Context, d *triggers.Delivery, v triggers.Verdict) {
	err := d.Settle(settling, v)
	if err == nil {
		return
	}
	f.log.Warn("cannot settle; will try until it works", "message", d.Message.ID, "verdict", v.Kind, "error", err)
	err = backoff.Retry(func() error { return d.Settle(settling, v) }, backoff.WithContext(receiveBackOff(), settling))
	if err != nil {
		f.stats.unsettled.Add(1)
		f.log.Error("not settled; the source will lend the message again",
			"message", d.Message.ID, "verdict", v.Kind, "error", err)
	}
}

// hasStopped reports whether stop was called: no slot that was freed after it is
// used again.
func (f *function) hasStopped() bool {
	select {
	case <-f.stopped:
		return true
	default:
		return false
	}
}

// stop ends the receiving for good, since the function's code does not load.
func (f *function) stop(why error) {
	f.stopOnce.Do(func() {
		f.misload = why
		close(f.stopped)
	})
}

// report writes what an operator needs to know of a verdict. A function that
// was stopped reports once, where its run ends.
func (f *function) report(m *triggers.Message, v triggers.Verdict, err error, took time.Duration) {
	level := slog.LevelDebug
	switch v.Kind {
	case triggers.Retry:
		level = slog.LevelWarn
	case triggers.Reject:
		level = slog.LevelError
	}
	if !f.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("message", m.ID),
		slog.Int("attempt", m.Attempt),
		slog.Duration("took", took.Round(time.Microsecond)),
	}
	text := v.Kind.String()
	switch v.Kind {
	case triggers.Retry:
		text = "attempt failed; will be tried again"
		attrs = append(attrs, slog.Int("max_attempts", f.retry.MaxAttempts), slog.Duration("retry_in", v.Delay))
	case triggers.Reject:
		text = "rejected; moved to the dead letters"
		attrs = append(attrs, slog.String("reason", v.Reason))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		var failure *handlers.Failure
		if errors.As(err, &failure) && failure.Detail != "" {
			attrs = append(attrs, slog.String("detail", failure.Detail))
		}
	}
	f.log.LogAttrs(context.Background(), level, text, attrs...)
}

// retryDelay is the wait after the failure of an attempt, 1 being the first:
// exponential, spread by the jitter, at most retry.Max.
func retryDelay(retry configs.Retry, attempt int) time.Duration {
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(retry.Initial.D()),
		backoff.WithMaxInterval(retry.Max.D()),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(retry.Jitter),
		backoff.WithMaxElapsedTime(0),
	)
	var delay time.Duration
	for range attempt {
		delay = b.NextBackOff()
	}
	return min(delay, retry.Max.D())
}

// receiveBackOff paces what is tried again for ever: 100 ms to 10 s.
func receiveBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}
