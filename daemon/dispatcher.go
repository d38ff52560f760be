package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
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

// run receives until receiving ends or the function's code turns out not to
// load, and returns when everything that it received is settled. working ends
// what is in flight; settling, later than it, the settlements.
func (f *function) run(receiving, working, settling context.Context) error {
	receiving, cancel := context.WithCancel(receiving)
	defer cancel()
	f.receiving, f.working, f.settling = receiving, working, settling
	f.starter, _ = f.handler.(handlers.Starter)
	f.runners.begin()
	defer f.runners.end()
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() {
		select {
		case <-f.stopped:
			cancel()
		case <-receiving.Done():
		}
	})

	pause := receiveBackOff()
	failing := ""
	for f.stuck.wait(receiving) == nil && f.memory.Wait(receiving) == nil {
		n, err := f.share.Offer(receiving)
		if err != nil || f.hasStopped() {
			break
		}
		if n = f.memory.Admit(n); n == 0 {
			continue // others have used the memory up meanwhile
		}
		if failing != "" {
			f.stats.reception.tries(time.Now())
		}
		asked := f.spans.now()
		got, err := f.receive(receiving, min(n, maxBatch))
		if err != nil && receiving.Err() == nil {
			f.stats.reception.failed(time.Now())
			delay := pause.NextBackOff()
			if failing != err.Error() {
				failing = err.Error()
				f.cannot.Store(failing)
				f.log.Warn("cannot receive; will try until it works", "error", err, "retry_in", delay)
			}
			wait(receiving, delay)
			continue
		}
		if failing != "" && len(got) > 0 {
			f.log.Info("receiving again")
			failing = ""
			f.stats.reception.succeeded()
			pause.Reset()
		}
		f.take(got, asked)
	}
	f.takeHeld()
	f.inFlight.Wait()
	select {
	case <-f.stopped:
		return f.misload
	default:
		return nil
	}
}

// take has messages run, each in a slot.
func (f *function) take(got []*triggers.Delivery, asked time.Time) {
	f.stats.received.Add(int64(len(got)))
	f.inFlight.Add(len(got))
	f.memory.Take(got)
	taken := f.share.Take(len(got))
	now := time.Now()
	f.stats.taken.begin(taken)
	turns := f.turns[:0]
	for i, d := range got {
		t := f.newTurn(d, now, i < taken)
		f.spans.received(t, asked)
		switch {
		case !t.slotted:
			go f.claim(t)
		case !f.started(t):
			turns = append(turns, t)
		}
	}
	f.runners.add(turns...)
	clear(turns)
	f.turns = turns
}

// heldLimit bounds how long what was held ready is worked off when receiving has
// ended: it is a tenth of a second's worth.
const heldLimit = 2 * time.Second

// takeHeld has what the source has lent ahead of its time run, when receiving has
// ended. What is left then the trigger gives back.
func (f *function) takeHeld() {
	source, ok := f.trigger.(triggers.Drainer)
	if paused, _ := f.pauses.state(); !ok || paused || f.hasStopped() {
		return
	}
	ctx, cancel := context.WithTimeout(f.working, heldLimit)
	defer cancel()
	for {
		if _, slots := f.share.Room(); slots == 0 {
			return // there is nobody to run it, and that may stay so
		}
		asked := f.spans.now()
		n, err := f.share.Offer(ctx)
		if err != nil {
			return
		}
		got, err := source.Drain(ctx, min(n, maxBatch))
		if err != nil || len(got) == 0 {
			return
		}
		f.take(got, asked)
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

// turn is one message's way from the trigger and back, and the context of the
// attempt. It holds one slot, or none where a stop came before there was one.
type turn struct {
	attempt
	f        *function
	delivery *triggers.Delivery
	message  *triggers.Message // as the handler and the outputs get it
	trail    *trail            // nil: it is not traced
	received time.Time
	start    time.Time
	stood    time.Duration // how long the daemon had stood still when the attempt began
	begun    atomic.Int64  // ns since birth when it had its slot; 0: it has none yet
	seat     *seat         // among those in flight
	slotted  bool
	epoch    *epoch // of the pool's settings when it was handed out; nil where nothing seeks them
	handled  bool   // output and err are what became of it
	output   []byte
	about    triggers.Properties // of the output
	err      error
	lost     atomic.Bool
}

func (f *function) newTurn(d *triggers.Delivery, now time.Time, slotted bool) *turn {
	t := &turn{
		attempt: attempt{Context: f.working, deadline: now.Add(f.timeout)},
		f:       f, delivery: d, message: d.Message, received: now, start: now, slotted: slotted,
	}
	if slotted {
		t.begun.Store(int64(now.Sub(birth)))
	}
	t.stood = f.standstill.total(now.Sub(birth))
	t.seat = f.present.enter(t, f.stats.inFlight())
	d.Watch(t)
	return t
}

// Lost implements triggers.Watcher.
func (t *turn) Lost() {
	t.lost.Store(true)
	t.f.stats.lost.Add(1)
	if t.f.cancelOnLost {
		t.abort(errLost)
	}
}

// Renew implements handlers.Renewable.
func (t *turn) Renew() {
	now := time.Now()
	t.stood = t.f.standstill.total(now.Sub(birth))
	t.renew(now.Add(t.f.timeout))
}

// claim waits for a slot for a message that was received when the room was gone.
func (f *function) claim(t *turn) {
	t.slotted = f.share.Claim(f.working) == nil
	t.start = time.Now()
	if t.slotted {
		f.stats.taken.begin(1)
		t.begun.Store(int64(t.start.Sub(birth)))
	}
	t.deadline = t.start.Add(f.timeout)
	if !t.slotted || !f.started(t) {
		t.run()
	}
}

// started gives a message to a handler that answers later, and reports whether it
// is one.
func (f *function) started(t *turn) bool {
	t.trail.handle(t)
	if f.pool != nil {
		t.epoch = f.pool.epoch.Load()
	}
	if f.starter == nil || f.fits(t.delivery.Message) != nil {
		return false
	}
	f.starter.Start(t, t.message, t)
	return true
}

// SetResult implements handlers.ResultSink.
func (t *turn) SetResult(output []byte, err error) {
	t.handled, t.output, t.err = true, output, err
	t.f.runners.add(t) // to settle may take a while
}

// Describe implements handlers.Described.
func (t *turn) Describe(properties triggers.Properties) { t.about = properties }

// Value implements handlers.Described, and else is that of the attempt.
func (t *turn) Value(key any) any {
	if key == handlers.DescribedKey {
		return t
	}
	return t.attempt.Value(key)
}

// run is the rest of a turn, or all of it.
func (t *turn) run() {
	f := t.f
	defer f.inFlight.Done()
	m := t.delivery.Message
	switch {
	case !t.slotted:
		t.err = handlers.ErrNotTried
	case !t.handled:
		if t.err = f.fits(m); t.err == nil {
			t.output, t.err = f.handler.Handle(t, t.message)
		}
	}
	for t.runsAgain() {
		t.Renew()
		t.output, t.err = f.handler.Handle(t, t.message)
	}
	t.err = f.timedOut(t, t.err)
	if t.epoch != nil {
		t.err = t.epoch.ended(t, t.err)
	}
	err := t.err
	t.end()
	if err == nil && len(f.outputs) > 0 && t.output != nil {
		err = f.emit(t)
	}
	v := f.judge(f.working, m, err)
	took := time.Since(t.start)
	v, settled := f.settle(t, v, err)
	now := time.Now()
	t.trail.end(t, v, err, took, now)
	if settled {
		f.report(m, v, err, took)
		f.setbacks.remember(m, v, err)
		f.stats.settled(m, v.Kind, err, took, now)
	} else {
		f.stats.abandoned.Add(1)
	}
	t.seat.Store(nil)
	f.memory.Done(len(m.Body))
	t.free(now)
}

// free gives the slot back, if there is one.
func (t *turn) free(now time.Time) {
	if t.slotted {
		t.slotted = false
		t.f.stats.taken.end(now)
		t.f.share.Free(1)
	}
}

// fits returns an error if the message is too large for the function.
func (f *function) fits(m *triggers.Message) error {
	if size := int64(len(m.Body)); f.maxBody > 0 && size > f.maxBody {
		return handlers.Reject(fmt.Errorf("%w: the body has %d bytes, more than max_body (%d)", triggers.ErrTooLarge, size, f.maxBody))
	}
	return nil
}

// timedOut says of a failure that it was the timeout, where it was.
func (f *function) timedOut(t *turn, err error) error {
	// A function that came to its end in spite of the timeout is done.
	if err == nil || f.working.Err() != nil || t.Err() == nil || handlers.Rejected(err) {
		return err
	}
	if t.lost.Load() && f.cancelOnLost {
		return fmt.Errorf("cancelled, since its message was lost: %w", handlers.ErrNotTried)
	}
	if errors.Is(err, errTimeout) || errors.Is(err, context.DeadlineExceeded) {
		late := &handlers.Failure{Summary: fmt.Sprintf("timed out after %v", f.timeout)}
		var failure *handlers.Failure
		if errors.As(err, &failure) {
			late.Detail = failure.Detail // where its code was
		}
		return late
	}
	return fmt.Errorf("timed out after %v: %w", f.timeout, err)
}

// judge turns what a handler returned into the verdict on the message.
func (f *function) judge(working context.Context, m *triggers.Message, err error) triggers.Verdict {
	var loadError *handlers.LoadError
	switch {
	case err == nil:
		return triggers.Verdict{Kind: triggers.Done}
	case handlers.Rejected(err):
		return f.reject(err.Error(), err)
	case errors.As(err, &loadError):
		f.stop(loadError)
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
	return triggers.Verdict{Kind: triggers.Reject, Reason: reason, Detail: failureDetail(err), Function: f.name}
}

// settle carries the verdict out, and returns the one that the source took. A
// source that refuses it is asked again until settling ends; then the lease runs
// out and the message comes back. Meanwhile the trigger renews the lease, and the
// slot is free for others.
func (f *function) settle(t *turn, v triggers.Verdict, cause error) (taken triggers.Verdict, settled bool) {
	err := t.delivery.Settle(f.settling, v)
	if err == nil {
		return v, true
	}
	// It is counted before its slot is free, or more could be received than the bound allows.
	f.stuck.hold(exit{t: t}, snag{verdict: v.Kind, err: err})
	t.free(time.Now())
	defer func() {
		if last := f.stuck.free(exit{t: t}); last && settled {
			f.log.Info("settling works again")
		}
	}()
	f.reportRefusal(t.delivery.Message, v, cause, err)
	pause, stopping := receiveBackOff(), false
	for {
		switch {
		case f.settling.Err() != nil:
			f.log.Error("message not settled; the source delivers it again", "message", t.delivery.Message.ID, "verdict", v.Kind, "error", err)
			return v, false
		case stopping && v.Kind == triggers.Reject:
			// A stop does not wait for a dead-letter queue that somebody has to make:
			// the message comes again, and its attempts stay counted.
			v = triggers.Verdict{Kind: triggers.Release}
		case stopping:
			wait(f.settling, pause.NextBackOff())
		default:
			wait(f.receiving, pause.NextBackOff())
			stopping = f.receiving.Err() != nil
		}
		if err = t.delivery.Settle(f.settling, v); err == nil {
			return v, true
		}
		f.stuck.hold(exit{t: t}, snag{verdict: v.Kind, err: err})
	}
}

// reportRefusal logs that a source does not take a verdict, and what that was.
func (f *function) reportRefusal(m *triggers.Message, v triggers.Verdict, cause, refusal error) {
	attrs := []slog.Attr{slog.String("message", m.ID), slog.String("verdict", v.Kind.String()), slog.Any("error", refusal)}
	if v.Reason != "" {
		attrs = append(attrs, slog.String("reason", v.Reason))
	}
	if detail := failureDetail(cause); detail != "" {
		attrs = append(attrs, slog.String("detail", detail))
	}
	f.log.LogAttrs(context.Background(), slog.LevelWarn, "message not settled; retrying until the source takes it", attrs...)
}

func failureDetail(err error) string {
	var failure *handlers.Failure
	if errors.As(err, &failure) {
		return failure.Detail
	}
	return ""
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
		text = "message dead-lettered"
		attrs = append(attrs, slog.String("reason", v.Reason))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if detail := failureDetail(err); detail != "" {
			attrs = append(attrs, slog.String("detail", detail))
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

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	sleep := time.NewTimer(d)
	defer sleep.Stop()
	select {
	case <-sleep.C:
	case <-ctx.Done():
	}
}

// receiveBackOff paces what is tried again for ever: 100 ms to 10 s.
func receiveBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}
