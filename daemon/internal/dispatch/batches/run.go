package batches

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// The errors of messages that did not run.
var (
	errCancelled = fmt.Errorf("cancelled before its batch ran: %w", handlers.ErrNotTried)
	errHeldBack  = fmt.Errorf("an earlier message of its ordering key failed: %w", handlers.ErrNotTried)
)

// run is one batch, until each of its messages has a result.
type run struct {
	*Handler
	failedKeys map[string]bool // ordering keys of messages that failed: later ones must wait
}

// runBatch runs messages, and passes each its result.
func (h *Handler) runBatch(items []item) {
	r := run{Handler: h}
	r.runHalves(items)
	h.mu.Lock()
	h.setRunning(items, false, r.failedKeys)
	heldBack := h.takeHeldBack()
	h.runDue()
	h.mu.Unlock()
	passError(heldBack, errHeldBack)
}

// runHalves runs messages in one call. If that fails as a whole, it runs each half in a call of its
// own, and so on down to single messages.
func (r *run) runHalves(items []item) {
	if items = r.withoutEnded(items); len(items) == 0 {
		return
	}
	err := r.tryBatch(items)
	n := len(items)
	switch {
	case err == nil:
	case n > 1 && r.isDivisible(err):
		r.cfg.Counts.splits.Add(1)
		r.cfg.Log.Debug("a batch failed, and runs again in halves", "messages", n, "error", err)
		r.runHalves(items[:n/2])
		r.runHalves(items[n/2:])
	default:
		for _, it := range items {
			r.passResult(it, nil, err)
		}
	}
}

// isDivisible reports whether a failure may be that of single messages of the batch.
func (r *run) isDivisible(err error) bool {
	var loadError *handlers.LoadError
	_, asked := handlers.RetryDelay(err) // a verdict on all messages
	switch {
	case asked, errors.As(err, &loadError), r.working.Err() != nil:
		return false
	case errors.Is(err, handlers.ErrNotTried):
		return errors.Is(err, handlers.ErrRunAgain)
	}
	return true
}

// withoutEnded passes back the messages that need not run, or not yet, and returns the others.
func (r *run) withoutEnded(items []item) []item {
	out := items[:0:0]
	for _, it := range items {
		switch key := it.message.OrderingKey; {
		case key != "" && r.failedKeys[key]:
			it.to.SetResult(nil, errHeldBack)
		case errors.Is(it.ctx.Err(), context.Canceled): // the end of its time does not count: it has waited for others
			it.to.SetResult(nil, errCancelled)
		default:
			out = append(out, it)
		}
	}
	return out
}

// passResult passes a message its result.
func (r *run) passResult(it item, output []byte, err error) {
	if key := it.message.OrderingKey; err != nil && key != "" {
		if r.failedKeys == nil {
			r.failedKeys = make(map[string]bool)
		}
		r.failedKeys[key] = true
	}
	it.to.SetResult(output, err)
}

// tryBatch runs messages in one call. If the call succeeds, it passes each message its result.
func (r *run) tryBatch(items []item) error {
	messages := make([]*triggers.Message, len(items))
	for i, it := range items {
		messages[i] = it.message
		if attempt, is := it.ctx.(handlers.Renewable); is {
			attempt.Renew() // the message has waited for others
		}
	}
	ctx, end := newBatchContext(items)
	ctx, endSpan := startSpan(ctx, r.cfg.Function, items)
	r.cfg.Counts.addCall(len(items))
	result, err := r.HandleBatch(ctx, messages)
	end()
	if n := len(result.Each); err == nil && n != 0 && n != len(items) {
		err = fmt.Errorf("it has %d results for %d messages", n, len(items))
	}
	endSpan(err)
	if err != nil {
		return err
	}
	if len(items) == 1 && len(result.Each) == 0 { // the result of the call is the message's
		result.Each, result.Whole = []handlers.Result{result.Whole}, handlers.Result{}
	}
	if err := sendWhole(items, &result.Whole); err != nil {
		return err
	}
	for i, it := range items {
		var own handlers.Result
		if len(result.Each) > 0 {
			own = result.Each[i]
		}
		output, err := own.Deliver(it.ctx)
		r.passResult(it, output, err)
	}
	return nil
}

// sendWhole sends the result of a batch, by its first message. It returns when all outputs have
// accepted it, so that no message of the batch is done before.
func sendWhole(items []item, whole *handlers.Result) error {
	first := items[0].ctx
	leader, is := first.Value(handlers.LeaderKey).(handlers.BatchLeader)
	if !is || len(items) == 1 && whole.Output == nil && len(whole.Sent) == 0 {
		return nil // the messages sent by a single message go with its own result
	}
	for _, s := range whole.Sent {
		if err := handlers.Send(first, s.Output, s.Body, s.Properties); err != nil {
			return err
		}
	}
	return leader.SendResult(whole.Output, whole.Properties)
}
