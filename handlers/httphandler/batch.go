package httphandler

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// batcher collects messages into batches. Each message waits in its own call of Handle, and leaves
// when its context ends, independently of the others.
type batcher struct {
	h       *Handler
	running sync.WaitGroup // requests

	mu       sync.Mutex
	inHandle int    // messages in a Handle
	open     *batch // accepts more messages; nil if there is none
}

// batch has the messages of one request.
type batch struct {
	ctx      context.Context // ends when all messages have left
	cancel   context.CancelFunc
	due      *time.Timer
	failOnce sync.Once

	// Guarded by batcher.mu.
	items   []*item
	ids     map[string]bool // the response identifies messages by ID, so each ID occurs once
	bytes   int64
	waiting int
	sent    bool
}

// handleMessage implements Handle.
func (b *batcher) handleMessage(ctx context.Context, m *triggers.Message) ([]byte, error) {
	p, err := b.h.cfg.Batch.encodePart(b.h.cfg.Events, b.h.cfg.Function, m)
	if err != nil {
		return nil, handlers.Reject(err)
	}
	it := &item{m: m, part: p, done: make(chan struct{})}
	in := b.addItem(it)
	select {
	case <-it.done:
		b.removeItem(in, it)
		if it.err == nil {
			describeJSON(ctx, it.out)
		}
		return it.out, it.err
	case <-ctx.Done():
		if b.removeItem(in, it) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			in.failOnce.Do(b.h.gate.recordFailure) // one failure per request
		}
		return nil, ctx.Err()
	}
}

// addItem adds a message to the open batch, or to a new one.
func (b *batcher) addItem(it *item) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inHandle++
	if in := b.open; in != nil && (in.bytes+it.part.byteSize() > b.h.cfg.Batch.MaxBytes || in.ids[it.m.ID]) {
		b.sendBatch(in)
	}
	if b.open == nil {
		in := &batch{ids: make(map[string]bool)}
		in.ctx, in.cancel = context.WithCancel(context.Background())
		in.due = time.AfterFunc(b.h.cfg.Batch.Wait, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.sendBatch(in)
		})
		b.open = in
	}
	in := b.open
	in.items = append(in.items, it)
	in.ids[it.m.ID] = true
	in.bytes += it.part.byteSize()
	in.waiting++
	if len(in.items) >= b.h.cfg.Batch.Max || b.inHandle >= b.h.gate.slots.Capacity() {
		b.sendBatch(in)
	}
	return in
}

// removeItem removes a message, with or without a response, and reports whether it was sent. The
// last message to leave cancels the request.
func (b *batcher) removeItem(in *batch, it *item) (sent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inHandle--
	if in.waiting--; !in.sent {
		in.items = slices.DeleteFunc(in.items, func(other *item) bool { return other == it })
		delete(in.ids, it.m.ID)
		in.bytes -= it.part.byteSize()
	}
	if in.waiting == 0 {
		in.cancel()
		b.closeBatch(in)
	}
	return in.sent
}

// closeBatch stops adding messages to a batch; mu is held.
func (b *batcher) closeBatch(in *batch) {
	in.due.Stop()
	if b.open == in {
		b.open = nil
	}
}

// sendBatch posts a batch, at most once; mu is held.
func (b *batcher) sendBatch(in *batch) {
	if b.closeBatch(in); in.sent || in.waiting == 0 {
		return
	}
	in.sent = true
	b.running.Go(func() { b.postItems(in.ctx, in.items) })
}

// postItems sends messages in one request, and sets the result of each. If the app rejects
// the request, it sends each half separately, because a single message may be the reason.
func (b *batcher) postItems(ctx context.Context, items []*item) {
	fields, body, err := b.h.cfg.Batch.encodeBatch(b.h.cfg.Events, b.h.cfg.Function, items)
	if err != nil {
		finishItems(items, err)
		return
	}
	a, err := b.h.postMessage(ctx, fields, body)
	if n := len(items); n > 1 && handlers.Rejected(err) {
		b.postItems(ctx, items[:n/2])
		b.postItems(ctx, items[n/2:])
		return
	}
	if err != nil {
		finishItems(items, err)
		return
	}
	results, err := decodeResults(a.body)
	if err != nil {
		b.h.gate.recordFailure()
		finishItems(items, failureOf(err.Error(), a.body))
		return
	}
	b.h.gate.recordSuccess()
	for _, it := range items {
		switch r, found := results[it.m.ID]; {
		case found:
			it.out, it.err = b.h.itemOf(r)
		case results != nil:
			it.err = errors.New("the app's answer has no result for it")
		}
		close(it.done)
	}
}

func finishItems(items []*item, err error) {
	for _, it := range items {
		it.err = err
		close(it.done)
	}
}
