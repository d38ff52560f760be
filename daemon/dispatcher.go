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

// This file is the whole life of a message: reserve, receive, handle, judge, settle.
// Nothing else turns an error into a verdict, settles, or backs off.

// maxBatch bounds one Receive; it is more than any source gives in one go.
const maxBatch = 4096

// run receives until receiving ends or the function's code fails to load, and returns
// when everything that it received is settled. working ends what is in flight; settling,
// later than it, the settlements.
func (f *function) run(receiving, working, settling context.Context) error {
	receiving, cancel := context.WithCancel(receiving)
	defer cancel()
	f.receiving, f.working, f.settling = receiving, working, settling
	f.starter, _ = f.handler.(handlers.Starter)
	f.executions.open()
	defer f.executions.shutdown()
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
	for f.stuck.waitForRoom(receiving) == nil && f.memory.Wait(receiving) == nil {
		n, err := f.share.Offer(receiving)
		if err != nil || f.hasStopped() {
			break
		}
		if n = f.memory.Admit(n); n == 0 {
			continue // others have used the memory up meanwhile
		}
		if failing != "" {
			f.stats.receiving.noteTry(time.Now())
		}
		asked := f.spans.timeNow()
		got, err := f.receiveBatch(receiving, min(n, maxBatch))
		if err != nil && receiving.Err() == nil {
			f.stats.receiving.noteFailure(time.Now())
			delay := pause.NextBackOff()
			if failing != err.Error() {
				failing = err.Error()
				f.receiveError.Store(failing)
				f.log.Warn("cannot receive; will try until it works", "error", err, "retry_in", delay)
			}
			wait(receiving, delay)
			continue
		}
		if failing != "" && len(got) > 0 {
			f.log.Info("receiving again")
			failing = ""
			f.stats.receiving.noteSuccess()
			pause.Reset()
		}
		f.dispatchBatch(got, asked)
	}
	f.drainPrefetched()
	f.unfinished.Wait()
	select {
	case <-f.stopped:
		return f.misload
	default:
		return nil
	}
}

// dispatchBatch has messages run, each in a slot. They were asked for at a time.
func (f *function) dispatchBatch(got []*triggers.Delivery, asked time.Time) {
	f.stats.received.Add(int64(len(got)))
	f.unfinished.Add(len(got))
	f.memory.Take(got)
	taken := f.share.Take(len(got))
	now := time.Now()
	f.stats.taken.take(taken)
	batch := f.batch[:0]
	for i, d := range got {
		x := f.newExecution(d, now, i < taken)
		x.trail = f.spans.newTrail(d.Message, asked, now)
		switch {
		case !x.slotted:
			go x.waitForSlot()
		case !x.startAsync():
			batch = append(batch, x)
		}
	}
	f.executions.enqueue(batch...)
	clear(batch)
	f.batch = batch
}

// drainLimit bounds the time for prefetched messages when receiving has ended: a source
// prefetches a tenth of a second's worth.
const drainLimit = 2 * time.Second

// drainPrefetched has the messages run that the source has leased ahead of time, when
// receiving has ended. The trigger abandons those that are left then.
func (f *function) drainPrefetched() {
	source, ok := f.trigger.(triggers.Drainer)
	if paused, _ := f.pauses.state(); !ok || paused || f.hasStopped() {
		return
	}
	ctx, cancel := context.WithTimeout(f.working, drainLimit)
	defer cancel()
	for {
		if _, slots := f.share.Room(); slots == 0 {
			return // no worker is running, and none may ever start
		}
		asked := f.spans.timeNow()
		n, err := f.share.Offer(ctx)
		if err != nil {
			return
		}
		got, err := source.Drain(ctx, min(n, maxBatch))
		if err != nil || len(got) == 0 {
			return
		}
		f.dispatchBatch(got, asked)
	}
}

// receiveBatch waits for messages for the n slots that were offered. While it waits,
// other functions of the pool may take them all: then it returns nothing.
func (f *function) receiveBatch(receiving context.Context, n int) ([]*triggers.Delivery, error) {
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

// execution is one message's way from the trigger and back, and the context of the
// attempt. It holds one slot, or none if a stop came before there was one.
type execution struct {
	attemptContext
	f        *function
	delivery *triggers.Delivery
	message  *triggers.Message // as the handler and the outputs get it
	trail    *trail            // nil: it is not traced
	received time.Time
	start    time.Time
	stood    time.Duration // how long the daemon had stood still when the attempt began
	begun    atomic.Int64  // ns since processStart when it had its slot; 0: it has none yet
	entry    *inFlightEntry[execution]
	slotted  bool
	epoch    *epoch // of the pool's settings when it was handed out; nil where nothing seeks them
	handled  bool   // output and err are what became of it
	output   []byte
	about    triggers.Properties // of the output
	err      error
	lost     atomic.Bool
}

func (f *function) newExecution(d *triggers.Delivery, now time.Time, slotted bool) *execution {
	x := &execution{
		attemptContext: attemptContext{Context: f.working, deadline: now.Add(f.timeout)},
		f:              f, delivery: d, message: d.Message, received: now, start: now, slotted: slotted,
	}
	if slotted {
		x.begun.Store(int64(now.Sub(processStart)))
	}
	x.stood = f.standstill.totalAt(now.Sub(processStart))
	x.entry = f.inFlight.enter(x, f.stats.inFlight())
	d.Watch(x)
	return x
}

// Lost implements triggers.Watcher.
func (x *execution) Lost() {
	x.lost.Store(true)
	x.f.stats.lost.Add(1)
	if x.f.cancelOnLost {
		x.abort(errLost)
	}
}

// Renew implements handlers.Renewable.
func (x *execution) Renew() {
	now := time.Now()
	x.stood = x.f.standstill.totalAt(now.Sub(processStart))
	x.renew(now.Add(x.f.timeout))
}

// waitForSlot runs a message that was received when there was no slot left, as soon as
// it has one.
func (x *execution) waitForSlot() {
	f := x.f
	x.slotted = f.share.Claim(f.working) == nil
	x.start = time.Now()
	if x.slotted {
		f.stats.taken.take(1)
		x.begun.Store(int64(x.start.Sub(processStart)))
	}
	x.deadline = x.start.Add(f.timeout)
	if !x.slotted || !x.startAsync() {
		x.runToEnd()
	}
}

// startAsync gives a message to a handler that answers later, and reports whether it
// is one.
func (x *execution) startAsync() bool {
	f := x.f
	if x.trail != nil {
		x.message = x.trail.startProcess(x.message, x.start)
		x.addBelow(x.trail.inContext)
	}
	if f.epochs != nil {
		x.epoch = f.epochs.Load()
	}
	if f.starter == nil || f.checkBodySize(x.delivery.Message) != nil {
		return false
	}
	f.starter.Start(x, x.message, x)
	return true
}

// SetResult implements handlers.ResultSink.
func (x *execution) SetResult(output []byte, err error) {
	x.handled, x.output, x.err = true, output, err
	x.f.executions.enqueue(x) // to settle may take a while
}

// Describe implements handlers.Described.
func (x *execution) Describe(properties triggers.Properties) { x.about = properties }

// Value implements handlers.Described, and else is that of the attempt.
func (x *execution) Value(key any) any {
	if key == handlers.DescribedKey {
		return x
	}
	return x.attemptContext.Value(key)
}

// runToEnd is the rest of an execution, or all of it: it handles the message, unless that
// was done, sends the result, and settles.
func (x *execution) runToEnd() {
	f := x.f
	defer f.unfinished.Done()
	m := x.delivery.Message
	switch {
	case !x.slotted:
		x.err = handlers.ErrNotTried
	case !x.handled:
		if x.err = f.checkBodySize(m); x.err == nil {
			x.output, x.err = f.handler.Handle(x, x.message)
		}
	}
	for x.runsAgain() {
		x.Renew()
		x.output, x.err = f.handler.Handle(x, x.message)
	}
	x.err = x.classifyTimeout(x.err)
	if x.epoch != nil {
		x.err = x.epoch.judgeEnd(x, x.err)
	}
	err := x.err
	x.stopTimer()
	if err == nil && len(f.outputs) > 0 && x.output != nil {
		err = x.sendOutputs()
	}
	v := f.judge(f.working, m, err)
	took := time.Since(x.start)
	v, settled := x.settle(v, err)
	now := time.Now()
	if x.trail != nil {
		x.trail.endProcess(v, err, x.start.Add(took), now, x.lost.Load())
	}
	if settled {
		f.report(m, v, err, took)
		f.failures.remember(m, v, err)
		f.stats.countSettled(m, v.Kind, err, took, now)
	} else {
		f.stats.abandoned.Add(1)
	}
	x.entry.Store(nil)
	f.memory.Done(len(m.Body))
	x.freeSlot(now)
}

// freeSlot frees the slot, if there is one.
func (x *execution) freeSlot(now time.Time) {
	if x.slotted {
		x.slotted = false
		x.f.stats.taken.release(now)
		x.f.share.Free(1)
	}
}

// runsAgain reports whether the attempt starts over, without being charged.
func (x *execution) runsAgain() bool {
	f := x.f
	switch {
	case x.err == nil, f.working.Err() != nil, x.lost.Load(), handlers.Rejected(x.err):
		return false
	case errors.Is(x.err, handlers.ErrRunAgain):
		return true
	case x.Err() == nil:
		return false
	}
	return f.standstill.totalAt(time.Since(processStart))-x.stood >= f.timeout/standstillShare
}

// checkBodySize returns an error if the message is too large for the function.
func (f *function) checkBodySize(m *triggers.Message) error {
	if size := int64(len(m.Body)); f.maxBody > 0 && size > f.maxBody {
		return handlers.Reject(fmt.Errorf("%w: the body has %d bytes, more than max_body (%d)", triggers.ErrTooLarge, size, f.maxBody))
	}
	return nil
}

// classifyTimeout returns the error of a failed attempt: one that names the timeout, if
// that was the cause.
func (x *execution) classifyTimeout(err error) error {
	f := x.f
	// A function that completed in spite of the timeout is done.
	if err == nil || f.working.Err() != nil || x.Err() == nil || handlers.Rejected(err) {
		return err
	}
	if x.lost.Load() && f.cancelOnLost {
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

// settle carries the verdict out, and returns the one that the source took. If the
// source refuses it, settle tries again until settling ends; then the lease expires and
// the message is delivered again. Meanwhile the trigger renews the lease, and the slot is
// free for others.
func (x *execution) settle(v triggers.Verdict, cause error) (taken triggers.Verdict, settled bool) {
	f := x.f
	err := x.delivery.Settle(f.settling, v)
	if err == nil {
		return v, true
	}
	// It is counted before its slot is free, or more could be received than the bound allows.
	f.stuck.hold(exit{d: x.delivery}, blockage{verdict: v.Kind, err: err})
	x.freeSlot(time.Now())
	defer func() {
		if last := f.stuck.remove(exit{d: x.delivery}); last && settled {
			f.log.Info("settling works again")
		}
	}()
	f.reportRefusal(x.delivery.Message, v, cause, err)
	pause, stopping := receiveBackOff(), false
	for {
		switch {
		case f.settling.Err() != nil:
			f.log.Error("message not settled; the source delivers it again", "message", x.delivery.Message.ID, "verdict", v.Kind, "error", err)
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
		if err = x.delivery.Settle(f.settling, v); err == nil {
			return v, true
		}
		f.stuck.hold(exit{d: x.delivery}, blockage{verdict: v.Kind, err: err})
	}
}

// reportRefusal logs that a source refuses a verdict, and the verdict itself.
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

// report logs a verdict. A function that was stopped reports once, where its run ends.
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
