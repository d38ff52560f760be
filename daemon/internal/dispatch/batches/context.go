package batches

import (
	"context"
	"sync/atomic"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// batchContext is the context of a call with several messages. It has the values of the first
// message's context, and ends when those of all messages have ended: a message whose lease was lost
// does not cancel the others.
type batchContext struct {
	context.Context
	first context.Context
}

// newBatchContext returns the context of a call with messages. end must be called after the call.
func newBatchContext(items []item) (ctx context.Context, end func()) {
	first := items[0].ctx
	if len(items) == 1 {
		return first, func() {}
	}
	inner, cancel := context.WithCancelCause(context.WithoutCancel(first))
	stop := func() {}
	if deadline, has := items[len(items)-1].ctx.Deadline(); has {
		inner, stop = context.WithDeadline(inner, deadline)
	}
	var left atomic.Int64
	left.Store(int64(len(items)))
	unhook := make([]func() bool, len(items))
	for i, it := range items {
		ended := func() {
			if left.Add(-1) == 0 {
				cancel(context.Cause(it.ctx))
			}
		}
		if own, is := it.ctx.(handlers.Interruptible); is {
			unhook[i] = own.OnInterrupt(ended)
		} else {
			unhook[i] = context.AfterFunc(it.ctx, ended)
		}
	}
	return &batchContext{inner, first}, func() {
		for _, each := range unhook {
			each()
		}
		stop()
		cancel(nil)
	}
}

// Value implements context.Context.
func (c *batchContext) Value(key any) any {
	if key == handlers.DescribedKey {
		return c
	}
	return c.Context.Value(key)
}

// Send implements handlers.Sending: the first message sends for the batch.
func (c *batchContext) Send(output string, body []byte, properties triggers.Properties) error {
	return handlers.Send(c.first, output, body, properties)
}
