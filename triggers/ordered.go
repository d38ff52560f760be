package triggers

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// maxParked bounds the messages that wait behind another of their key. At the bound
// nothing more is received until one of them becomes ready, so that a single busy key
// does not pull the whole backlog into this process.
const maxParked = 1024

// Ordered wraps a trigger so that Receive returns the messages of one ordering key one at
// a time, by Delivery.Sequence, or else in the order of their arrival. Keys are handled in
// parallel, and messages without a key do not wait. A message that is retried or released
// keeps its place: it stays leased here, and those behind it wait. Messages not settled at
// Close are released to the source.
//
// The order holds within this trigger. Another instance that reads the same source has an
// order of its own.
func Ordered(inner Trigger) Trigger { return OrderedTogether(inner, 1) }

// OrderedTogether is Ordered for functions that take batches: Receive returns up to n messages of one
// key together, in order, and no more of the key until all of these are settled. If some of them are
// retried or released, these then come first, again in order, after the longest of their delays.
// The caller must not run a message of a key before, or beside, an earlier one; once one has failed, it
// releases those behind it.
func OrderedTogether(inner Trigger, n int) Trigger {
	return &ordered{
		inner:  inner,
		most:   max(n, 1),
		keys:   make(map[string]*line),
		timers: make(map[*time.Timer]*Delivery),
		wake:   make(chan struct{}, 1),
	}
}

type ordered struct {
	inner Trigger
	most  int // messages of a key that are returned together

	mu     sync.Mutex
	keys   map[string]*line          // keys with a message here
	parked int                       // messages that wait behind another of their key
	ready  []*Delivery               // the inner's, ready for Receive
	timers map[*time.Timer]*Delivery // of heads that wait for their next attempt
	closed bool

	wake chan struct{} // something became ready
}

// line has the messages of one key.
type line struct {
	head   *Delivery     // ready, in flight, or waiting for its next attempt
	out    bool          // Receive has returned the head before
	behind []*Delivery   // messages that wait for it, by sequence
	lent   []*Delivery   // the head and those that were returned with it, until all are settled
	open   int           // how many of these are not settled
	held   []*Delivery   // those of them that are to be returned again
	delay  time.Duration // the longest delay of these
}

// orderedLease is a lease of the wrapper, over a delivery of the inner trigger.
type orderedLease struct {
	o     *ordered
	inner *Delivery
	outer *Delivery
}

// LeaseRevoked implements RevokeHandler.
func (l *orderedLease) LeaseRevoked() { l.outer.Revoke() }

func (o *ordered) Receive(ctx context.Context, max int) ([]*Delivery, error) {
	for {
		if out, full := o.takeReady(max); len(out) > 0 {
			return out, nil
		} else if full {
			select {
			case <-o.wake:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		got, err := o.receiveInner(ctx, max)
		if ctx.Err() != nil && len(got) == 0 {
			return nil, ctx.Err()
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
		o.admit(got)
	}
}

// receiveInner receives from the source until a message becomes ready here.
func (o *ordered) receiveInner(ctx context.Context, max int) ([]*Delivery, error) {
	waiting, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-o.wake:
			cancel()
		case <-waiting.Done():
		}
	}()
	got, err := o.inner.Receive(waiting, max)
	cancel()
	<-done
	return got, err
}

// admit makes received messages ready, or queues them behind others of their key.
func (o *ordered) admit(got []*Delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range got {
		key := d.Message.OrderingKey
		if key == "" {
			o.ready = append(o.ready, d)
			continue
		}
		l := o.keys[key]
		if l == nil {
			o.keys[key] = &line{head: d}
			o.ready = append(o.ready, d)
			continue
		}
		o.parked++
		if at := slices.Index(o.ready, l.head); d.before(l.head) && !l.out && at >= 0 {
			d, l.head, o.ready[at] = l.head, d, d // the head of the key has not been returned yet
		}
		at := len(l.behind)
		for at > 0 && d.before(l.behind[at-1]) {
			at--
		}
		l.behind = slices.Insert(l.behind, at, d)
	}
}

// before reports whether d comes before another in the source's order.
func (d *Delivery) before(other *Delivery) bool {
	return d.Sequence != 0 && d.Sequence < other.Sequence
}

func (o *ordered) takeReady(max int) (out []*Delivery, full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for ; n < len(o.ready) && len(out) < max; n++ {
		d := o.ready[n]
		key := d.Message.OrderingKey
		if d.IsRevoked() {
			o.passOn(key)
			continue
		}
		out = append(out, o.lend(d))
		if key == "" {
			continue
		}
		l := o.keys[key]
		l.out, l.lent = true, append(l.lent[:0], d)
		for len(l.lent) < o.most && len(out) < max && len(l.behind) > 0 {
			next := l.behind[0]
			l.behind = l.behind[1:]
			o.parked--
			if !next.IsRevoked() {
				l.lent, out = append(l.lent, next), append(out, o.lend(next))
			}
		}
		l.open = len(l.lent)
	}
	o.ready = append(o.ready[:0], o.ready[n:]...)
	return out, o.parked >= maxParked
}

// lend returns the wrapper's delivery of a message.
func (o *ordered) lend(d *Delivery) *Delivery {
	l := &orderedLease{o: o, inner: d}
	l.outer = NewDelivery(d.Message, l)
	d.OnRevoked(l)
	return l.outer
}

func (o *ordered) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (l *orderedLease) Settle(ctx context.Context, m *Message, v Verdict) error {
	o := l.o
	if m.OrderingKey == "" {
		return l.inner.Settle(ctx, v)
	}
	if v.Kind == Retry && o.holdBack(l, m, v.Delay, 1) || v.Kind == Release && o.holdBack(l, m, 0, 0) {
		return nil
	}
	if v.Kind == Retry && !l.inner.IsRevoked() {
		v = Verdict{Kind: Release} // closed meanwhile: later messages of the key are released too
	}
	if err := l.inner.Settle(ctx, v); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endLent(m.OrderingKey)
	return nil
}

// holdBack keeps a message leased until its delay is over, before the others of its key. It
// returns false if the trigger is closed or the lease revoked.
func (o *ordered) holdBack(l *orderedLease, m *Message, delay time.Duration, failures int) bool {
	again := *m
	again.Attempt += failures
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || l.inner.IsRevoked() {
		return false
	}
	l.inner.Message = &again
	own := o.keys[m.OrderingKey]
	own.held, own.delay = append(own.held, l.inner), max(own.delay, delay)
	o.endLent(m.OrderingKey)
	return true
}

// endLent records that one of the messages of a key that were returned together is settled, or held.
// After the last one, those that are held become ready again, or else the next message. o.mu is
// locked.
func (o *ordered) endLent(key string) {
	l := o.keys[key]
	if l == nil {
		return // closed
	}
	if l.open--; l.open > 0 {
		return
	}
	held, delay := l.held, l.delay
	l.held, l.delay = nil, 0
	if len(held) == 0 {
		o.passOn(key)
		o.signal()
		return
	}
	slices.SortFunc(held, func(a, b *Delivery) int { return cmp.Compare(slices.Index(l.lent, a), slices.Index(l.lent, b)) })
	l.head, l.behind = held[0], append(held[1:len(held):len(held)], l.behind...)
	o.parked += len(held) - 1
	if delay <= 0 {
		o.ready = append(o.ready, l.head)
		o.signal()
		return
	}
	o.readyAfter(l.head, delay)
}

// readyAfter makes a message ready after a delay; o.mu is locked.
func (o *ordered) readyAfter(d *Delivery, delay time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if _, waits := o.timers[timer]; !waits {
			return
		}
		delete(o.timers, timer)
		o.ready = append(o.ready, d)
		o.signal()
	})
	o.timers[timer] = d
}

// passOn makes the next message of a key ready when the head was settled or revoked; o.mu is
// locked.
func (o *ordered) passOn(key string) {
	l := o.keys[key]
	if l == nil {
		return // closed
	}
	if len(l.behind) == 0 {
		delete(o.keys, key)
		return
	}
	l.head, l.behind, l.out = l.behind[0], l.behind[1:], false
	o.parked--
	o.ready = append(o.ready, l.head)
}

// Link implements Linked.
func (o *ordered) Link() (l Link, known bool) {
	if linked, ok := o.inner.(Linked); ok {
		return linked.Link()
	}
	return l, false
}

// Holding implements Holder.
func (o *ordered) Holding() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := int64(len(o.timers))
	if holder, ok := o.inner.(Holder); ok {
		n += holder.Holding()
	}
	return n
}

// Troubles implements Troubled.
func (o *ordered) Troubles() []Trouble {
	if troubled, ok := o.inner.(Troubled); ok {
		return troubled.Troubles()
	}
	return nil
}

// Notes implements Noter.
func (o *ordered) Notes() []string {
	if noter, ok := o.inner.(Noter); ok {
		return noter.Notes()
	}
	return nil
}

// Find implements Finder.
func (o *ordered) Find(ctx context.Context, id string) (Found, error) {
	if finder, ok := o.inner.(Finder); ok {
		return finder.Find(ctx, id)
	}
	return Found{}, ErrNotFound
}

func (o *ordered) Backlog(ctx context.Context) (Backlog, error) { return o.inner.Backlog(ctx) }

// Close releases, in the order of the source, messages that were prefetched or held for a
// retry, and closes the source. The source stops receiving first, so that released messages
// do not arrive here again.
func (o *ordered) Close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	var held []*Delivery
	for timer, d := range o.timers {
		timer.Stop()
		held = append(held, d)
	}
	held = append(held, o.ready...)
	for _, l := range o.keys {
		held = append(held, append(l.held, l.behind...)...)
	}
	o.timers, o.ready, o.keys, o.parked = nil, nil, make(map[string]*line), 0
	o.mu.Unlock()
	var errs []error
	for inner, ok := o.inner.(Drainer); ok; {
		got, err := inner.Drain(ctx, maxParked)
		errs = append(errs, err)
		held = append(held, got...)
		ok = len(got) > 0
	}
	slices.SortStableFunc(held, func(a, b *Delivery) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, d := range held {
		errs = append(errs, d.Settle(ctx, Verdict{Kind: Release}))
	}
	return errors.Join(append(errs, o.inner.Close(ctx))...)
}
