package triggers

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxParked bounds the messages that wait behind another of their key. Beyond
// it nothing more is received until one of them could go: a single busy key must
// not draw the whole backlog into this process.
const maxParked = 1024

// Ordered wraps a trigger so that messages of one ordering key are handed out
// one at a time, in the order of their arrival; keys go in parallel, and
// messages without a key are not held up. A message that is retried keeps its
// place: it stays on loan for the delay, and those behind it wait.
//
// The order holds within this trigger. What was given back, or lost in a crash,
// the source lends again in an order of its own, and another instance that reads
// the same source has another.
func Ordered(inner Trigger) Trigger {
	return &ordered{
		inner:  inner,
		behind: make(map[string][]*Delivery),
		timers: make(map[*time.Timer]*orderedLoan),
		wake:   make(chan struct{}, 1),
	}
}

type ordered struct {
	inner Trigger

	mu     sync.Mutex
	behind map[string][]*Delivery // those waiting, for each key that is out
	parked int                    // how many those are
	ready  []*Delivery            // the inner's, free to be handed out
	timers map[*time.Timer]*orderedLoan
	closed bool

	wake chan struct{} // something became ready
}

// orderedLoan is what the wrapper lends: the inner's delivery under its own.
type orderedLoan struct {
	o     *ordered
	inner *Delivery
}

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

// receiveInner waits at the source, until something becomes ready here.
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

// admit sorts what came from the source: to the ready ones, or behind their key.
func (o *ordered) admit(got []*Delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range got {
		key := d.Message.OrderingKey
		if key != "" {
			if queue, out := o.behind[key]; out {
				o.behind[key] = append(queue, d)
				o.parked++
				continue
			}
			o.behind[key] = nil
		}
		o.ready = append(o.ready, d)
	}
}

func (o *ordered) takeReady(max int) (out []*Delivery, full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(max, len(o.ready))
	for _, d := range o.ready[:n] {
		out = append(out, NewDelivery(d.Message, &orderedLoan{o, d}))
	}
	o.ready = append(o.ready[:0], o.ready[n:]...)
	return out, o.parked >= maxParked
}

func (o *ordered) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (l *orderedLoan) Settle(ctx context.Context, m *Message, v Verdict) error {
	o := l.o
	if m.OrderingKey == "" {
		return l.inner.Settle(ctx, v)
	}
	if v.Kind == Retry {
		if o.holdBack(l, m, v.Delay) {
			return nil
		}
		v = Verdict{Kind: Release} // closed meanwhile: those behind go back too
	}
	if err := l.inner.Settle(ctx, v); err != nil {
		return err
	}
	if v.Kind == Release {
		return o.releaseKey(ctx, m.OrderingKey)
	}
	o.next(m.OrderingKey)
	return nil
}

// holdBack keeps a failed message here until its delay is over.
func (o *ordered) holdBack(l *orderedLoan, m *Message, delay time.Duration) bool {
	again := *m
	again.Attempt++
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	l.inner.Message = &again
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if _, waits := o.timers[timer]; !waits {
			return
		}
		delete(o.timers, timer)
		o.ready = append(o.ready, l.inner)
		o.signal()
	})
	o.timers[timer] = l
	return true
}

// next lets the first of those behind the key go.
func (o *ordered) next(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	queue := o.behind[key]
	if len(queue) == 0 {
		delete(o.behind, key)
		return
	}
	o.behind[key] = queue[1:]
	o.parked--
	o.ready = append(o.ready, queue[0])
	o.signal()
}

// releaseKey gives back all that wait behind the key, in their order, since the
// one before them went back too.
func (o *ordered) releaseKey(ctx context.Context, key string) error {
	o.mu.Lock()
	queue := o.behind[key]
	delete(o.behind, key)
	o.parked -= len(queue)
	o.signal()
	o.mu.Unlock()
	var errs []error
	for _, d := range queue {
		errs = append(errs, d.Settle(ctx, Verdict{Kind: Release}))
	}
	return errors.Join(errs...)
}

// Link implements Linked.
func (o *ordered) Link() (l Link, known bool) {
	if linked, ok := o.inner.(Linked); ok {
		return linked.Link()
	}
	return l, false
}

// Troubles implements Troubled.
func (o *ordered) Troubles() []Trouble {
	if troubled, ok := o.inner.(Troubled); ok {
		return troubled.Troubles()
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

// Close gives back what was held here and never handed out, or held for a
// retry, and closes the source.
func (o *ordered) Close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	var held []*Delivery
	for timer, l := range o.timers {
		timer.Stop()
		held = append(held, l.inner)
	}
	held = append(held, o.ready...)
	for _, queue := range o.behind {
		held = append(held, queue...)
	}
	o.timers, o.ready, o.behind, o.parked = nil, nil, make(map[string][]*Delivery), 0
	o.mu.Unlock()
	var errs []error
	for _, d := range held {
		errs = append(errs, d.Settle(ctx, Verdict{Kind: Release}))
	}
	return errors.Join(append(errs, o.inner.Close(ctx))...)
}
