package natsjs

import (
	"time"

	"github.com/drover-run/drover/triggers"
)

const (
	// rateOver is the number of settlements over which the rate is measured.
	rateOver = 256
	// ahead is the amount of work that PrefetchAuto prefetches: as many messages as are settled in
	// this time.
	ahead = 100 * time.Millisecond
	// maxPrefetch bounds PrefetchAuto.
	maxPrefetch = 4096
	// weighStep is the change in prefetched bytes that is reported to the account.
	weighStep = 64 << 10
)

// prefetch has the messages that are leased and not yet returned by Receive, first in, first out.
// It decides how many they may be. binding.mu guards it.
type prefetch struct {
	memory *triggers.Account // bounds the bytes
	size   int               // messages to lease beyond those that a Receive requests
	auto   bool              // size follows the rate

	items []*triggers.Delivery
	head  int // the index of the first item
	// The bytes of the bodies: all of them, those last reported to the account, and the maximum of
	// those added since then.
	bytes, weighed, largest int

	settled int64     // all settlements so far
	counted int64     // settled when lowerSize was called last
	marked  time.Time // the time of the last rateOver settlements
}

func newPrefetch(size int, memory *triggers.Account) *prefetch {
	if size == PrefetchAuto {
		return &prefetch{memory: memory, auto: true}
	}
	return &prefetch{memory: memory, size: size}
}

func (q *prefetch) len() int { return len(q.items) - q.head }

func (q *prefetch) put(d *triggers.Delivery) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, d)
	size := len(d.Message.Body)
	q.bytes, q.largest = q.bytes+size, max(q.largest, size)
	q.weigh()
}

// take returns the first messages, at most n.
func (q *prefetch) take(n int) []*triggers.Delivery {
	defer q.weigh()
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

// clear drops all messages.
func (q *prefetch) clear() {
	q.items, q.head, q.bytes, q.largest = nil, 0, 0, 0
	q.weigh()
}

// weigh reports the prefetched bytes to the account.
func (q *prefetch) weigh() {
	now, before := q.bytes, q.weighed
	if now-before < weighStep && before-now < weighStep && (now > 0 || before == 0) {
		return
	}
	q.weighed = now
	q.memory.Hold(int64(now), q.largest)
	q.largest = 0
}

// countSettled raises the size as soon as messages are settled faster. A message that would wait
// longer than ahead is left to other instances.
func (q *prefetch) countSettled() {
	q.settled++
	if q.settled%rateOver != 0 || !q.auto {
		return
	}
	now := time.Now()
	took := now.Sub(q.marked)
	q.marked = now
	q.size = max(q.size, int(min(rateOver*ahead/max(took, 1), maxPrefetch)))
}

// lowerSize lowers the size to the rate of the last second. It is called once a second.
func (q *prefetch) lowerSize() {
	if q.auto {
		q.size = min(q.size, int((q.settled-q.counted)*int64(ahead)/int64(barrierEvery)))
	}
	q.counted = q.settled
}

// stop ends prefetching.
func (q *prefetch) stop() { q.size, q.auto = 0, false }
