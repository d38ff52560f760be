package natsjs

import "github.com/drover-run/drover/triggers"

// queue is a first-in first-out list.
type queue struct {
	items []*triggers.Delivery
	head  int

	bytes, largest int // of the bodies; largest is the maximum of those added since it was reset to 0
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) put(d *triggers.Delivery) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, d)
	size := len(d.Message.Body)
	q.bytes, q.largest = q.bytes+size, max(q.largest, size)
}

func (q *queue) take(n int) []*triggers.Delivery {
	n = min(n, q.len())
	if n == 0 {
		return nil
	}
	out := make([]*triggers.Delivery, n)
	copy(out, q.items[q.head:])
	for _, d := range out {
		q.bytes -= len(d.Message.Body)
	}
	clear(q.items[q.head : q.head+n])
	if q.head += n; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return out
}
