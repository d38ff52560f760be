package natsjs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/natsjs/convert"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// leasedMessage is the state of a leased message, in one allocation.
type leasedMessage struct {
	triggers.Delivery
	message triggers.Message
	msg     *nats.Msg
	settler *settler
	life    *life // of stream and consumer, when it arrived

	delivery   uint64 // the number of this delivery of the consumer
	deliveries uint64 // deliveries of this message, by the server's count
	recorded   int    // failures in the ledger

	ending sync.Mutex // serializes the settlement and renewals
	over   bool       // it was settled; guarded by ending

	renewed    time.Time // the last renewal; guarded by binding.mu, as are the links
	prev, next *leasedMessage

	entry record.Entry
}

func newLeasedMessage(s *settler, m *nats.Msg) (*leasedMessage, error) {
	l := &leasedMessage{settler: s, msg: m}
	at, err := parseReply(m.Reply)
	if err != nil {
		return nil, err
	}
	l.deliveries, l.Sequence, l.delivery = at.deliveries, at.sequence, at.delivery
	l.message = triggers.Message{
		Body:     m.Data,
		Attempt:  1,
		Enqueued: time.Unix(0, at.enqueued),
		Subject:  m.Subject,
	}
	convert.SetIdentity(&l.message, m.Header, s.cfg.Stream, l.Sequence, s.cfg.OrderingToken)
	l.Init(&l.message, l)
	return l, nil
}

func (l *leasedMessage) place() place { return place{l.Sequence, l.message.Enqueued.UnixNano()} }

// counted identifies the message in the ledger.
func (l *leasedMessage) counted() ledger.Message {
	return ledger.Message{Sequence: l.Sequence, Enqueued: l.message.Enqueued, Created: l.life.consumer}
}

// Settle implements triggers.Lease.
func (l *leasedMessage) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	v = l.settler.adjustVerdict(l, m, v)
	if err := l.settler.carryOut(ctx, l, m, v); err != nil {
		return fmt.Errorf("settling message %s of stream %s as %v: %w", m.ID, l.settler.cfg.Stream, v.Kind, err)
	}
	l.settler.untrack(l, v.Kind)
	return nil
}

// sendReply sends a renewal or, at the end, a settlement. No renewal is sent after a settlement: that
// would undo a delay.
func (l *leasedMessage) sendReply(said []byte, end bool) error {
	l.ending.Lock()
	defer l.ending.Unlock()
	if l.over && !end {
		return nil
	}
	l.over = l.over || end
	return l.settler.sendOf(l.life, l.msg.Reply, said)
}

var errReply = errors.New("its reply subject is not that of a JetStream message")

// delivered describes a delivery, as the server reports it.
type delivered struct {
	place
	deliveries uint64 // of the message
	delivery   uint64 // the number of this delivery of the consumer
}

// parseReply parses the subject for acknowledgements:
// $JS.ACK.stream.consumer.deliveries.sequence.consumersequence.time.pending, or,
// in its longer form, with domain and account hash before the stream, and a
// random token at the end (ADR-15). It does not allocate.
func parseReply(reply string) (at delivered, err error) {
	rest, found := strings.CutPrefix(reply, "$JS.ACK.")
	if !found {
		return at, errReply
	}
	names := 2
	if strings.Count(rest, ".") >= 8 {
		names = 4
	}
	for range names {
		if _, rest, found = strings.Cut(rest, "."); !found {
			return at, errReply
		}
	}
	var numbers [4]uint64
	for i := range numbers {
		var number string
		if number, rest, found = strings.Cut(rest, "."); !found {
			return at, errReply
		}
		if numbers[i], err = strconv.ParseUint(number, 10, 64); err != nil {
			return at, errReply
		}
	}
	return delivered{place{numbers[1], int64(numbers[3])}, numbers[0], numbers[2]}, nil
}

// leaseList is a list of leases, ordered by the time of their last renewal, the oldest first.
type leaseList struct {
	ring   leasedMessage
	n      int
	record *record.Source // for the next daemon; nil records none
}

func (a *leaseList) init() { a.ring.prev, a.ring.next = &a.ring, &a.ring }

func (a *leaseList) add(l *leasedMessage, now time.Time) {
	l.renewed = now
	l.prev, l.next = a.ring.prev, &a.ring
	l.prev.next, a.ring.prev = l, l
	a.n++
}

func (a *leaseList) remove(l *leasedMessage) {
	a.record.Drop(&l.entry)
	a.unlink(l)
}

func (a *leaseList) unlink(l *leasedMessage) {
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
	a.n--
}

// all yields the leases. None may be added or removed meanwhile.
func (a *leaseList) all() iter.Seq[*leasedMessage] {
	return func(yield func(*leasedMessage) bool) {
		for l := a.ring.next; l != &a.ring && yield(l); l = l.next {
		}
	}
}

func (a *leaseList) has(p place) bool {
	for l := range a.all() {
		if l.Sequence == p.sequence && l.place() == p {
			return true
		}
	}
	return false
}

// removeAll removes all leases, and returns them.
func (a *leaseList) removeAll() []*leasedMessage {
	all := slices.Collect(a.all())
	for _, l := range all {
		a.remove(l)
	}
	return all
}

// renewBefore returns the leases last renewed before a time, and marks them as renewed.
func (a *leaseList) renewBefore(before, now time.Time) (due []*leasedMessage) {
	for l := a.ring.next; l != &a.ring && l.renewed.Before(before); l = l.next {
		due = append(due, l)
	}
	for _, l := range due {
		a.unlink(l)
		a.add(l, now)
	}
	return due
}
