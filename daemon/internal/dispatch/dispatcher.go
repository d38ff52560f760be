// Package dispatch moves messages: from a trigger, through a handler and the outputs, to the
// verdict that the trigger settles.
//
// The daemon makes one Function for each function of its configuration, calls Run on its own goroutine, and calls Close when Run has returned. Run starts the goroutines that executions
// need, and returns when all of them have ended. Three contexts end it, in this order: those of
// receiving, of work, and of settling. It also ends when the function's code fails to load.
//
// A message takes these steps, all of them in dispatcher.go:
//
//  1. Run reserves slots, and memory, before it requests messages from the trigger.
//  2. receiveBatch receives at most that many, and dispatchBatch gives each a slot and an
//     execution: the state of the message until it is settled, and the context of the attempt.
//  3. startAsync passes it to a handler that answers later, whose SetResult resumes the
//     execution; for any other handler runToEnd calls Handle.
//  4. sendOutputs sends the result and the messages for named outputs, and sendReply passes the result
//     to a sender that waits.
//  5. judgeResult turns the error into a verdict.
//  6. settleMessage passes the verdict to the trigger, and retries until the trigger accepts it.
//     Then the slot is free.
//
// Config has everything that dispatch needs from the daemon.
package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/dispatch/attempts"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file is the life of a message, in order. No other file turns an error into a verdict,
// settles, or backs off.

// maxBatch bounds one Receive; no source returns that many at once.
const maxBatch = 4096

// Run receives until receiving ends or the function's code fails to load, and returns when
// everything that it received is settled. The end of working cancels the calls in flight; the end
// of settling, which comes later, cancels settlements.
func (f *Function) Run(receiving, working, settling context.Context) error {
	receiving, cancel := context.WithCancel(receiving)
	defer cancel()
	f.receiving, f.working, f.settling = receiving, working, settling
	f.starter, _ = f.Handler.(handlers.Starter)
	if f.collector, _ = f.Handler.(handlers.Collector); f.collector != nil {
		f.collector.StartCollecting(working)
	}
	f.executions.openPool()
	f.extra.setOpen(true)
	defer f.executions.shutDown()
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() {
		select {
		case <-f.stopped:
			cancel()
		case <-receiving.Done():
		}
	})

	pause := newBackOff()
	failing := ""
	for f.stuck.waitForRoom(receiving) == nil && f.Memory.Wait(receiving) == nil {
		n, err := f.Share.Offer(receiving)
		if err != nil || f.hasStopped() {
			break
		}
		if n = f.Memory.Admit(n); n == 0 {
			continue // other functions have used the memory meanwhile
		}
		if failing != "" {
			f.Stats.receiving.recordTry(time.Now())
		}
		asked := f.Spans.timeNow()
		got, err := f.receiveBatch(receiving, min(n, maxBatch))
		if err != nil && receiving.Err() == nil {
			f.Stats.receiving.recordFailure(time.Now())
			delay := pause.NextBackOff()
			if failing != err.Error() {
				failing = err.Error()
				f.receiveError.Store(failing)
				f.Log.Warn("cannot receive; will retry until it works", "error", err, "retry_in", delay)
			}
			waitFor(receiving, delay)
			continue
		}
		if failing != "" && len(got) > 0 {
			f.Log.Info("receiving again")
			failing = ""
			f.Stats.receiving.recordSuccess()
			pause.Reset()
		}
		f.dispatchBatch(got, asked)
	}
	f.drainPrefetched()
	if f.collector != nil {
		f.collector.StopWaiting()
	}
	f.extra.setOpen(false)
	f.unfinished.Wait()
	select {
	case <-f.stopped:
		return f.loadError
	default:
		return nil
	}
}

// dispatchBatch runs messages, each in a slot. asked is when they were requested.
func (f *Function) dispatchBatch(got []*triggers.Delivery, asked time.Time) {
	f.Stats.received.Add(int64(len(got)))
	f.unfinished.Add(len(got))
	f.Memory.Take(got)
	if f.collector != nil {
		f.collector.BeginReceive(got)
	}
	taken := f.Share.Take(len(got))
	now := time.Now()
	f.Stats.slots.takeSlots(taken)
	batch := f.batch[:0]
	for i, d := range got {
		x := f.newExecution(d, now, i < taken)
		x.spans = f.Spans.traceMessage(d.Message, asked, now)
		switch {
		case !x.slotted:
			go x.waitForSlot()
		case !x.startAsync():
			batch = append(batch, x)
		}
	}
	f.executions.addWaiting(batch...)
	clear(batch)
	f.batch = batch
	if f.collector != nil {
		used, slots := f.Share.Room()
		f.collector.EndReceive(used < slots)
	}
}

// RunExtra runs a message that the trigger did not receive, as soon as a slot is free, and returns
// at once. It may be called from any goroutine.
func (f *Function) RunExtra(d *triggers.Delivery) error {
	f.extra.mu.Lock()
	if !f.extra.open || f.hasStopped() {
		f.extra.mu.Unlock()
		return errNotReceiving
	}
	f.unfinished.Add(1)
	f.extra.mu.Unlock()
	f.Stats.received.Add(1)
	f.Memory.Take([]*triggers.Delivery{d})
	now := time.Now()
	x := f.newExecution(d, now, false)
	x.spans = f.Spans.traceMessage(d.Message, now, now)
	go x.waitForSlot()
	return nil
}

// drainLimit bounds the time for prefetched messages after receiving has ended: a source
// prefetches the messages of a tenth of a second.
const drainLimit = 2 * time.Second

// drainPrefetched runs the messages that the source has prefetched, after receiving has ended. The
// trigger abandons the rest.
func (f *Function) drainPrefetched() {
	source, ok := f.Trigger.(triggers.Drainer)
	if paused, _ := f.pause.pauseState(); !ok || paused || f.hasStopped() {
		return
	}
	ctx, cancel := context.WithTimeout(f.working, drainLimit)
	defer cancel()
	for {
		if _, slots := f.Share.Room(); slots == 0 {
			return // no worker is running, and none may ever start
		}
		asked := f.Spans.timeNow()
		n, err := f.Share.Offer(ctx)
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

// receiveBatch waits for messages for the n slots that were offered. It returns nothing if other
// functions of the pool take all slots meanwhile.
func (f *Function) receiveBatch(receiving context.Context, n int) ([]*triggers.Delivery, error) {
	ctx, revoke := context.WithCancel(receiving)
	defer revoke()
	f.Share.Park(revoke)
	got, err := f.Trigger.Receive(ctx, n)
	f.Share.Unpark()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return got, err
}

// execution is one message from its receipt to its settlement, and the context of the attempt. It
// holds one slot, or none if the daemon stopped before a slot was free.
type execution struct {
	attempts.Attempt
	f          *Function
	delivery   *triggers.Delivery
	message    *triggers.Message // as passed to the handler and the outputs
	spans      *messageSpans     // nil: not traced
	received   time.Time
	start      time.Time
	standstill time.Duration // total standstill of the daemon when the attempt began
	begun      atomic.Int64  // when it got its slot, in ns since processStart; 0: it has none yet
	epoch      *Epoch        // the epoch in which the call started; nil if nothing tunes the pool
	mu         sync.Mutex    // guards named and returned until the call has returned
	callResult
	stream  atomic.Pointer[replyStream] // set by ReplyStream
	lost    atomic.Bool                 // it and the next two share a word
	slotted bool
	handled bool // the result is set
}

func (f *Function) newExecution(d *triggers.Delivery, now time.Time, slotted bool) *execution {
	x := &execution{f: f, delivery: d, message: d.Message, received: now, start: now, slotted: slotted}
	x.Begin(f.working, now.Add(f.Timeout))
	if slotted {
		x.begun.Store(int64(now.Sub(processStart)))
	}
	x.standstill = f.Standstill.totalAt(now.Sub(processStart))
	f.inFlight.addExecution(x)
	d.OnRevoked(x)
	return x
}

// LeaseRevoked implements triggers.RevokeHandler.
func (x *execution) LeaseRevoked() {
	x.lost.Store(true)
	x.f.Stats.lost.Add(1)
	if x.f.CancelOnLost {
		x.CancelWith(attempts.ErrLost)
	}
}

// Renew implements handlers.Renewable.
func (x *execution) Renew() {
	now := time.Now()
	x.standstill = x.f.Standstill.totalAt(now.Sub(processStart))
	x.ResetDeadline(now.Add(x.f.Timeout))
	x.dropNamed(false)
}

// waitForSlot runs a message that was received when no slot was free, as soon as one is.
func (x *execution) waitForSlot() {
	f := x.f
	x.slotted = f.Share.Claim(f.working) == nil
	x.start = time.Now()
	if x.slotted {
		f.Stats.slots.takeSlots(1)
		x.begun.Store(int64(x.start.Sub(processStart)))
	}
	x.SetDeadline(x.start.Add(f.Timeout))
	if !x.slotted || !x.startAsync() {
		x.runToEnd()
	} else if f.collector != nil {
		f.collector.EndReceive(false) // no slot was free
	}
}

// startAsync passes a message to a handler that answers later. It returns false if the handler is
// of another kind, or the message is too large.
func (x *execution) startAsync() bool {
	f := x.f
	if x.spans != nil {
		x.message = x.spans.startProcess(x.message, x.start)
		x.WrapParent(x.spans.withSpan)
	}
	if f.Epochs != nil {
		x.epoch = f.Epochs.Load()
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
	x.f.executions.addWaiting(x) // settling may take a while
}

// Describe implements handlers.Described.
func (x *execution) Describe(properties triggers.Properties) { x.outputProperties = properties }

// Send implements handlers.Sending.
func (x *execution) Send(output string, body []byte, properties triggers.Properties) error {
	if err := checkOutputName(output, x.f.OutputNames); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.addNamed(NamedMessage{output, body, properties})
}

// dropNamed drops the messages to named outputs before the call runs again. After the last run it drops
// them if the call failed; from then on the function cannot send.
func (x *execution) dropNamed(last bool) {
	if len(x.f.OutputNames) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.returned = last; !last || x.err != nil {
		x.named = nil
	}
}

// Value implements handlers.Described. Other values come from the attempt's context.
func (x *execution) Value(key any) any {
	switch key {
	case handlers.DescribedKey:
		return x
	case handlers.LeaderKey:
		return leader{x}
	}
	return x.Attempt.Value(key)
}

// runToEnd handles the message, unless that was done, sends the result, and settles.
func (x *execution) runToEnd() {
	f := x.f
	defer f.unfinished.Done()
	m := x.delivery.Message
	switch {
	case !x.slotted:
		x.err = handlers.ErrNotTried
	case !x.handled:
		if x.err = f.checkBodySize(m); x.err == nil {
			x.output, x.err = f.Handler.Handle(x, x.message)
		}
	}
	for x.runsAgain() {
		x.Renew()
		x.output, x.err = f.Handler.Handle(x, x.message)
	}
	x.dropNamed(true)
	x.err = x.classifyTimeout(x.err)
	if x.epoch != nil {
		x.err = x.judgeSettings(x.err)
	}
	err := x.err
	if s := x.stream.Load(); s != nil {
		s.detach() // the end of the context is no timeout from here on
	}
	x.StopTimer()
	if err == nil && len(f.Outputs) > 0 && (x.output != nil || x.named != nil) {
		err = x.sendOutputs()
	}
	if err == nil {
		err = x.sendReply()
	}
	v := f.judgeResult(f.working, m, err)
	took := time.Since(x.start)
	v, settled := x.settleMessage(v, err)
	now := time.Now()
	if x.spans != nil {
		x.spans.endProcess(v, err, x.start.Add(took), now, x.lost.Load())
	}
	if settled {
		f.logVerdict(m, v, err, took)
		f.failures.recordFailure(m, v, err)
		f.Stats.countSettled(m, v.Kind, err, took, now)
	} else {
		f.Stats.abandoned.Add(1)
	}
	if f.collector != nil {
		f.collector.EndMessage(m)
	}
	f.inFlight.removeExecution(x)
	f.Memory.Done(len(m.Body))
	x.freeSlot(now)
}

// freeSlot frees the slot, if the execution has one.
func (x *execution) freeSlot(now time.Time) {
	if x.slotted {
		x.slotted = false
		x.f.Stats.slots.releaseSlot(now)
		x.f.Share.Free(1)
	}
}

// runsAgain reports whether the attempt starts over, without using an attempt.
func (x *execution) runsAgain() bool {
	f := x.f
	switch {
	case x.err == nil, f.working.Err() != nil, x.lost.Load(), x.stream.Load() != nil, handlers.Rejected(x.err):
		return false
	case errors.Is(x.err, handlers.ErrRunAgain):
		return true
	case x.Err() == nil:
		return false
	}
	return f.Standstill.totalAt(time.Since(processStart))-x.standstill >= f.Timeout/standstillShare
}

// checkBodySize returns an error if the message is too large for the function.
func (f *Function) checkBodySize(m *triggers.Message) error {
	if size := int64(len(m.Body)); f.MaxBody > 0 && size > f.MaxBody {
		return handlers.Reject(fmt.Errorf("%w: the body has %d bytes, more than max_body (%d)", triggers.ErrTooLarge, size, f.MaxBody))
	}
	return nil
}

// classifyTimeout returns the error of a failed attempt: one that names the timeout, if the
// timeout caused it.
func (x *execution) classifyTimeout(err error) error {
	f := x.f
	// A function that completed in spite of the timeout is done.
	if err == nil || f.working.Err() != nil || x.Err() == nil || handlers.Rejected(err) {
		return err
	}
	if x.lost.Load() && f.CancelOnLost {
		return fmt.Errorf("cancelled, because its message was lost: %w", handlers.ErrNotTried)
	}
	if errors.Is(err, attempts.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		late := &handlers.Failure{Summary: fmt.Sprintf("timed out after %v", f.Timeout)}
		var failure *handlers.Failure
		if errors.As(err, &failure) {
			late.Detail = failure.Detail // where the code was
		}
		return late
	}
	return fmt.Errorf("timed out after %v: %w", f.Timeout, err)
}

// judgeSettings records how a call ended in a pool that is being tuned, and returns the error for
// judgeResult: one that is handlers.ErrNotTried if the settings caused the failure.
func (x *execution) judgeSettings(err error) error {
	f, e := x.f, x.epoch
	var loadError *handlers.LoadError
	switch {
	case err == nil:
		if f.Epochs.Load() == e {
			e.passed[f.PoolIndex].Add(1)
		}
		return nil
	case errors.Is(err, handlers.ErrNotTried), errors.Is(err, triggers.ErrTooLarge), errors.As(err, &loadError), f.working.Err() != nil:
		return err // the function did not cause it
	case e.failed(x.newFailedCall(err)) && x.delivery.Replier() == nil:
		return &undoneError{err} // a request does not run again: its sender gets the failure
	}
	return err
}

func (x *execution) newFailedCall(err error) FailedCall {
	m := x.message
	return FailedCall{
		Epoch: x.epoch.number, PoolIndex: x.f.PoolIndex, Function: x.f.Name, Message: m.ID, Attempt: m.Attempt,
		Final: handlers.Rejected(err) || m.Attempt >= x.f.Retry.MaxAttempts, Err: err,
	}
}

// ReportWorkerDied reports to the owner of the settings that a worker died during a call, which
// the pool then runs again. ctx is the context that the handler received; any other is ignored.
func ReportWorkerDied(ctx context.Context, how error) {
	if x, is := ctx.(*execution); is && x.epoch != nil {
		x.epoch.failed(x.newFailedCall(how))
	}
}

// leader sends the result of a batch, as that of its first message.
type leader struct{ x *execution }

// SendResult implements handlers.BatchLeader.
func (l leader) SendResult(output []byte, properties triggers.Properties) error {
	x := l.x
	x.output, x.outputProperties = output, properties
	defer func() {
		x.output, x.outputProperties = nil, nil
		x.dropNamed(false)
	}()
	return x.sendOutputs()
}

// sendOutputs sends an execution's result to the outputs without a name, and the messages for named
// outputs to these. The message is done only when every output has accepted what it gets. If one of
// them can never accept it, sendOutputs does not wait for the others, which may have accepted theirs
// already.
func (x *execution) sendOutputs() error {
	f, working := x.f, x.f.working
	if x.delivery.Replier() != nil {
		limited, cancel := context.WithTimeoutCause(working, replyOutputLimit, errSenderWaits)
		defer cancel()
		working = limited
	}
	var last *Output
	used := 0
	for _, o := range f.Outputs {
		if x.hasMessagesFor(o.Key) {
			last = o
			used++
		}
	}
	switch used {
	case 0:
		return nil
	case 1:
		return x.sendTo(working, last)
	}
	ctx, cancel := context.WithCancel(working)
	defer cancel()
	errs := make([]error, len(f.Outputs))
	var all sync.WaitGroup
	for i, o := range f.Outputs {
		if !x.hasMessagesFor(o.Key) {
			continue
		}
		all.Go(func() {
			if errs[i] = x.sendTo(ctx, o); errs[i] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	var failed error
	for _, err := range errs {
		if err != nil && (failed == nil || handlers.Rejected(err)) {
			failed = err
		}
	}
	return failed
}

// replyOutputLimit bounds how long outputs may fail while the sender of the message waits for the
// reply. Clients of HTTP often wait for 30 seconds.
const replyOutputLimit = 10 * time.Second

// errSenderWaits is the cause of a context that ended after replyOutputLimit.
var errSenderWaits = errors.New("the sender waits for the reply")

// sendTo sends one output what it gets, in order. It retries until the output accepts all of it, can
// never accept it, or ctx ends. What the output has accepted is not sent to it again.
func (x *execution) sendTo(ctx context.Context, o *Output) (err error) {
	f := x.f
	var plain [1]outgoing
	rest := x.appendMessages(plain[:0], o.Key)
	m, sent := x.spans.startSend(&o.Entity, x.message, rest)
	defer func() { sent.endSend(err) }()
	pause, failing := newBackOff(), ""
	defer func() {
		if failing != "" {
			f.stuck.removeBlocked(blockedAt{x.delivery, o.Name})
		}
	}()
	for {
		accepted, err := o.sendResults(ctx, m, rest)
		rest = rest[accepted:]
		switch {
		case err == nil:
			return nil
		case isUnsendable(err):
			return handlers.Reject(fmt.Errorf("the result, to %s: %w", o.Name, err))
		case errors.Is(context.Cause(ctx), errSenderWaits):
			return fmt.Errorf("its result was not sent to %s in %v, and the sender waits for the reply: %s", o.Name, replyOutputLimit, cmp.Or(failing, err.Error()))
		case ctx.Err() != nil, errors.Is(err, errOutputEnded):
			return fmt.Errorf("its result was not sent to %s: %w", o.Name, handlers.ErrNotTried)
		}
		if accepted > 0 {
			pause.Reset()
		}
		if failing != err.Error() {
			failing = err.Error()
			f.Log.Warn("cannot send a result; will retry until it works", "message", m.ID, "to", o.Name, "error", err)
		}
		f.stuck.addBlocked(blockedAt{x.delivery, o.Name}, refusal{err: err})
		waitFor(ctx, pause.NextBackOff())
	}
}

// sendReply passes the result to the sender of the message, if that waits for it. The outputs have
// accepted it before. A result that is not a valid reply is a rejection.
func (x *execution) sendReply() error {
	to := x.delivery.Replier()
	if to == nil {
		return nil
	}
	if s := x.stream.Load(); s != nil {
		if err := s.Close(); err != nil {
			return handlers.Reject(err)
		}
		return nil
	}
	if err := to.Reply(x.f.working, x.output, x.outputProperties); err != nil {
		return handlers.Reject(err)
	}
	return nil
}

// ReplyStream implements handlers.Streamed. It may be called from any goroutine, before the
// function has returned.
func (x *execution) ReplyStream(ctx context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	to, ok := x.delivery.Replier().(triggers.StreamReplier)
	if !ok {
		return nil, handlers.ErrNoStream
	}
	s, err := openReplyStream(ctx, to, properties)
	if err != nil {
		return nil, err
	}
	x.stream.Store(s)
	if len(x.f.Outputs) == 0 {
		return s, nil
	}
	return streamPart{s}, nil
}

// judgeResult turns the result of a handler into the verdict on the message.
func (f *Function) judgeResult(working context.Context, m *triggers.Message, err error) triggers.Verdict {
	var loadError *handlers.LoadError
	switch {
	case err == nil:
		return triggers.Verdict{Kind: triggers.Done}
	case handlers.Rejected(err):
		return newRejection(f.Name, err.Error(), err)
	case errors.As(err, &loadError):
		f.stopReceiving(loadError)
		return triggers.Verdict{Kind: triggers.Release}
	case errors.Is(err, handlers.ErrNotTried), working.Err() != nil:
		// The stop interrupted the call, whatever the function returned.
		return triggers.Verdict{Kind: triggers.Release}
	case m.Attempt >= f.Retry.MaxAttempts:
		return newRejection(f.Name, attemptsUsedUp(m.Attempt, err), err)
	}
	delay, asked := handlers.RetryDelay(err)
	if !asked {
		delay = retryDelay(f.Retry, m.Attempt)
	}
	return triggers.Verdict{Kind: triggers.Retry, Delay: delay}
}

// attemptsUsedUp returns the reason of a dead letter whose attempts are used up.
func attemptsUsedUp(attempts int, last error) string {
	if attempts == 1 {
		return fmt.Sprintf("failed at its only attempt: %v", last)
	}
	return fmt.Sprintf("failed %d times, the last time with: %v", attempts, last)
}

func newRejection(function, reason string, err error) triggers.Verdict {
	return triggers.Verdict{Kind: triggers.Reject, Reason: reason, Detail: failureDetail(err), Function: function}
}

// settleMessage passes the verdict to the source, and returns the one that the source accepted. If
// the source refuses it, settleMessage retries until settling ends; then the lease expires and the
// message is redelivered. Meanwhile the trigger renews the lease, and the slot is free for others.
func (x *execution) settleMessage(v triggers.Verdict, cause error) (taken triggers.Verdict, settled bool) {
	f := x.f
	err := x.delivery.Settle(f.settling, v)
	if err == nil {
		return v, true
	}
	// The message is counted as stuck before its slot is free. Otherwise more could be received
	// than the bound allows.
	f.stuck.addBlocked(blockedAt{delivery: x.delivery}, refusal{verdict: v.Kind, err: err})
	x.freeSlot(time.Now())
	defer func() {
		if last := f.stuck.removeBlocked(blockedAt{delivery: x.delivery}); last && settled {
			f.Log.Info("settling works again")
		}
	}()
	f.reportRefusal(x.delivery.Message, v, cause, err)
	pause, stopping := newBackOff(), false
	for {
		switch {
		case f.settling.Err() != nil:
			f.Log.Error("message not settled; the source will redeliver it", "message", x.delivery.Message.ID, "verdict", v.Kind, "error", err)
			return v, false
		case stopping && v.Kind == triggers.Reject:
			// A stop does not wait until an operator creates the dead-letter queue. The message is
			// released and redelivered, and its attempts stay counted.
			v = triggers.Verdict{Kind: triggers.Release}
		case stopping:
			waitFor(f.settling, pause.NextBackOff())
		default:
			waitFor(f.receiving, pause.NextBackOff())
			stopping = f.receiving.Err() != nil
		}
		if err = x.delivery.Settle(f.settling, v); err == nil {
			return v, true
		}
		f.stuck.addBlocked(blockedAt{delivery: x.delivery}, refusal{verdict: v.Kind, err: err})
	}
}

// reportRefusal logs that a source refuses a verdict, and the verdict itself.
func (f *Function) reportRefusal(m *triggers.Message, v triggers.Verdict, cause, refusal error) {
	attrs := []slog.Attr{slog.String("message", m.ID), slog.String("verdict", v.Kind.String()), slog.Any("error", refusal)}
	if v.Reason != "" {
		attrs = append(attrs, slog.String("reason", v.Reason))
	}
	if detail := failureDetail(cause); detail != "" {
		attrs = append(attrs, slog.String("detail", detail))
	}
	f.Log.LogAttrs(context.Background(), slog.LevelWarn, "message not settled; retrying until the source accepts it", attrs...)
}

func failureDetail(err error) string {
	var failure *handlers.Failure
	if errors.As(err, &failure) {
		return failure.Detail
	}
	return ""
}

// hasStopped reports whether stopReceiving was called. A slot that is freed after that is not used
// again.
func (f *Function) hasStopped() bool {
	select {
	case <-f.stopped:
		return true
	default:
		return false
	}
}

// stopReceiving ends receiving for good, because the function's code does not load.
func (f *Function) stopReceiving(why error) {
	f.stopOnce.Do(func() {
		f.loadError = why
		close(f.stopped)
		suspendTrigger(f.Trigger, "disabled, because its code failed to load", time.Time{})
	})
}

// rejectedText returns the log message for a rejected message.
func rejectedText(source triggers.Trigger) string {
	if _, answers := source.(triggers.Responder); answers {
		return "request failed"
	}
	if _, drops := source.(triggers.Discarder); drops {
		return "run failed for the last time; it is not retried"
	}
	return "message dead-lettered"
}

// logVerdict logs a verdict. A function that was stopped is reported once, where its run ends.
func (f *Function) logVerdict(m *triggers.Message, v triggers.Verdict, err error, took time.Duration) {
	level := slog.LevelDebug
	switch v.Kind {
	case triggers.Done:
		if f.Completions.CountMessage() {
			level = slog.LevelInfo
		}
	case triggers.Retry:
		level = slog.LevelWarn
	case triggers.Reject:
		level = slog.LevelError
	}
	if !f.Log.Enabled(context.Background(), level) {
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
		attrs = append(attrs, slog.Int("max_attempts", f.Retry.MaxAttempts), slog.Duration("retry_in", v.Delay))
	case triggers.Reject:
		text = rejectedText(f.Trigger)
		attrs = append(attrs, slog.String("reason", v.Reason))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if detail := failureDetail(err); detail != "" {
			attrs = append(attrs, slog.String("detail", detail))
		}
	}
	f.Log.LogAttrs(context.Background(), level, text, attrs...)
}
