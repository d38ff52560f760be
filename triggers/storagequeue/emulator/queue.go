package emulator

import (
	"container/heap"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// queue has the messages of one queue, ordered by the time at which they become visible. Its
// methods are called with the emulator's lock held.
type queue struct {
	name     string
	metadata map[string]string
	byID     map[string]*message
	order    order
	receipts uint64 // number of receipts issued
	seq      uint64
	expiries expiries
}

type message struct {
	id       string
	text     string
	inserted time.Time
	expires  time.Time
	visible  time.Time
	seq      uint64
	receipt  uint64 // of the last get or update
	dequeued int64
	at       int // index in order; -1 if it is not in it
}

// order is a heap: the message that becomes visible first is on top; of two, the one that was added
// first.
type order []*message

func (o order) Len() int { return len(o) }
func (o order) Less(i, j int) bool {
	if !o[i].visible.Equal(o[j].visible) {
		return o[i].visible.Before(o[j].visible)
	}
	return o[i].seq < o[j].seq
}
func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}
func (o *order) Push(x any) {
	m := x.(*message)
	m.at = len(*o)
	*o = append(*o, m)
}
func (o *order) Pop() any {
	last := len(*o) - 1
	m := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	m.at = -1
	return m
}

// expiries is a heap of the messages that expire, including deleted ones.
type expiries []*message

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].expires.Before(e[j].expires) }
func (e expiries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *expiries) Push(x any)        { *e = append(*e, x.(*message)) }
func (e *expiries) Pop() any {
	last := len(*e) - 1
	m := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return m
}

// never is the expiry time that the service reports for messages that do not expire.
var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func newQueue(name string, metadata map[string]string) *queue {
	return &queue{name: name, metadata: metadata, byID: make(map[string]*message)}
}

func (q *queue) put(text string, now time.Time, hidden, ttl time.Duration) *message {
	q.seq++
	m := &message{id: newID(), text: text, inserted: now, visible: now.Add(hidden), seq: q.seq, receipt: q.nextReceipt(), expires: never}
	if ttl > 0 {
		m.expires = now.Add(ttl)
		heap.Push(&q.expiries, m)
	}
	q.byID[m.id] = m
	heap.Push(&q.order, m)
	return m
}

func (q *queue) nextReceipt() uint64 {
	q.receipts++
	return q.receipts
}

// expire deletes expired messages. Now and then it also removes deleted messages that are still
// listed.
func (q *queue) expire(now time.Time) {
	for len(q.expiries) > 0 && (q.expiries[0].at < 0 || !q.expiries[0].expires.After(now)) {
		q.remove(heap.Pop(&q.expiries).(*message))
	}
	if len(q.expiries) > 2*len(q.order)+1024 {
		live := make(expiries, 0, len(q.order))
		for _, m := range q.expiries {
			if m.at >= 0 {
				live = append(live, m)
			}
		}
		heap.Init(&live)
		q.expiries = live
	}
}

func (q *queue) remove(m *message) {
	if m.at >= 0 {
		heap.Remove(&q.order, m.at)
		delete(q.byID, m.id)
	}
}

// visible returns up to n messages that can be received now, in order.
func (q *queue) visible(n int, now time.Time) []*message {
	q.expire(now)
	var out []*message
	for len(out) < n && len(q.order) > 0 && !q.order[0].visible.After(now) {
		out = append(out, heap.Pop(&q.order).(*message))
	}
	for _, m := range out {
		heap.Push(&q.order, m)
	}
	return out
}

// get leases up to n messages for the duration of lease.
func (q *queue) get(n int, now time.Time, lease time.Duration) []*message {
	out := q.visible(n, now)
	for _, m := range out {
		m.visible = now.Add(lease)
		m.dequeued++
		m.receipt = q.nextReceipt()
		heap.Fix(&q.order, m.at)
	}
	return out
}

// find returns the message to which a receipt belongs.
func (q *queue) find(id, receipt string, now time.Time) (*message, *failure) {
	q.expire(now)
	m := q.byID[id]
	switch {
	case m == nil:
		return nil, errMessageNotFound
	case receipt != receiptText(m.receipt):
		return nil, errReceipt
	}
	return m, nil
}

func (q *queue) update(m *message, now time.Time, hidden time.Duration, text *string) {
	m.visible = now.Add(hidden)
	m.receipt = q.nextReceipt()
	if text != nil {
		m.text = *text
	}
	heap.Fix(&q.order, m.at)
}

func (q *queue) clear() {
	q.byID, q.order, q.expiries = make(map[string]*message), nil, nil
}

func receiptText(n uint64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, n))
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
