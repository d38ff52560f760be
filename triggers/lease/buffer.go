package lease

import (
	"context"
	"slices"
	"sync"

	"github.com/drover-run/drover/triggers"
)

// Buffer has the prefetched messages of a source: leased, and not yet returned by Receive. All
// methods are called with L locked. Receive is called by one goroutine at a time.
type Buffer[M any] struct {
	// L is the source's lock. It guards the Buffer.
	L sync.Locker
	// Account counts the bytes of the messages; it may be nil.
	Account *triggers.Account
	// Request is called, with L locked, when Receive begins to wait. The source then requests
	// Waiting messages.
	Request func()
	// Closed is the error of Receive after Close.
	Closed error

	items   []*Item[M] // items[head:] are in the buffer
	head    int
	bytes   int64 // of their bodies
	largest int   // of those added since the last weigh
	waiting int
	failed  error
	closed  bool
	arrived chan struct{}
}

// NewBuffer returns an empty Buffer. L guards it; its fields are set before Receive.
func NewBuffer[M any](l sync.Locker) *Buffer[M] {
	return &Buffer[M]{L: l, arrived: make(chan struct{}, 1)}
}

// Receive waits for at least one message, and returns up to limit of them. Without messages it returns an
// error: the error of Fail, ctx.Err(), or Closed.
func (b *Buffer[M]) Receive(ctx context.Context, limit int) ([]*triggers.Delivery, error) {
	for {
		if b.closed {
			b.waiting = 0
			return nil, b.Closed
		}
		err := b.failed
		if err == nil {
			err = ctx.Err()
		}
		if b.Len() > 0 || err != nil {
			out := b.Take(limit)
			if len(out) > 0 {
				err = nil // the error is reported again if it persists
			}
			b.waiting, b.failed = 0, nil
			return out, err
		}
		b.waiting = limit
		b.Request()
		b.L.Unlock()
		select {
		case <-b.arrived:
		case <-ctx.Done():
		}
		b.L.Lock()
	}
}

// Drain returns up to limit messages without waiting.
func (b *Buffer[M]) Drain(limit int) []*triggers.Delivery {
	b.waiting = 0
	return b.Take(limit)
}

// Take removes up to limit messages, the oldest first. It returns none after Close.
func (b *Buffer[M]) Take(limit int) []*triggers.Delivery {
	n := min(b.Len(), limit)
	if n == 0 || b.closed {
		return nil
	}
	out := make([]*triggers.Delivery, n)
	for at, i := range b.items[b.head : b.head+n] {
		out[at] = &i.Delivery
		b.bytes -= int64(len(i.Message.Body))
	}
	clear(b.items[b.head : b.head+n])
	if b.head += n; b.head == len(b.items) {
		b.items, b.head = b.items[:0], 0
	}
	b.weigh()
	return out
}

// Add appends messages, and wakes Receive.
func (b *Buffer[M]) Add(items ...*Item[M]) {
	if b.head > 0 && len(b.items)+len(items) > cap(b.items) {
		n := copy(b.items, b.items[b.head:])
		clear(b.items[n:])
		b.items, b.head = b.items[:n], 0
	}
	b.items = append(b.items, items...)
	for _, i := range items {
		size := len(i.Message.Body)
		b.bytes, b.largest = b.bytes+int64(size), max(b.largest, size)
	}
	b.weigh()
	signal(b.arrived)
}

// Remove removes a message, and reports whether the buffer had it.
func (b *Buffer[M]) Remove(i *Item[M]) bool {
	at := slices.Index(b.items[b.head:], i)
	if at < 0 {
		return false
	}
	b.items = slices.Delete(b.items, b.head+at, b.head+at+1)
	b.bytes -= int64(len(i.Message.Body))
	b.weigh()
	return true
}

// weigh reports the bytes to the account.
func (b *Buffer[M]) weigh() {
	b.Account.Hold(b.bytes, b.largest)
	b.largest = 0
}

// Len returns the number of messages.
func (b *Buffer[M]) Len() int { return len(b.items) - b.head }

// Waiting returns the number of messages that a blocked Receive requests; 0 if none blocks.
func (b *Buffer[M]) Waiting() int { return b.waiting }

// Fail makes the next Receive without messages return err.
func (b *Buffer[M]) Fail(err error) {
	b.failed = err
	signal(b.arrived)
}

// Wake makes a blocked Receive request messages again.
func (b *Buffer[M]) Wake() { signal(b.arrived) }

// Close makes Receive return Closed from now on. It reports whether this is the first call.
func (b *Buffer[M]) Close() (first bool) {
	first = !b.closed
	b.closed = true
	signal(b.arrived)
	return first
}

// IsClosed reports whether Close was called.
func (b *Buffer[M]) IsClosed() bool { return b.closed }

// Rest removes and returns the remaining messages, after Close.
func (b *Buffer[M]) Rest() []M {
	var out []M
	for _, i := range b.items[b.head:] {
		out = append(out, i.owner)
	}
	b.items, b.head, b.bytes = nil, 0, 0
	b.weigh()
	return out
}
