package natsjs

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// The flow: what is held here and what was asked for together follow the
// Receive that waits, plus the prefetch. nats.go's own continuous Consume is not
// used, as it would fill a buffer whose messages nobody keeps alive; one Consume
// for each number of messages wanted asks again and survives reconnects by
// itself, and each message is kept alive from its arrival.

const (
	// pullExpiry is how long the server remembers a request; it is renewed.
	pullExpiry = 30 * time.Second
	// heartbeat is the server's sign of life while a request waits; without two
	// of them in a row the request is taken for lost, and made again.
	heartbeat = 2 * time.Second
)

// pull is a request for some messages.
type pull struct {
	t         *trigger
	left      int  // how many are still to come; guarded by t.mu
	ended     bool // what comes now was not counted on; likewise
	consuming jetstream.ConsumeContext
}

// want is how many messages to ask for now; t.mu is held. They are counted as
// outstanding at once. It waits until half is used up, so that the requests are
// few.
func (t *trigger) want() int {
	target := t.prefetch + t.waiting
	have := t.held.len() + t.looking + t.outstanding
	if t.closed || t.consumer == nil || have > target/2 || have >= target {
		return 0
	}
	t.outstanding += target - have
	return target - have
}

// pull asks for n messages.
func (t *trigger) pull(n int) {
	p := &pull{t: t, left: n}
	t.mu.Lock()
	consumer := t.consumer
	t.pulls[p] = struct{}{}
	t.mu.Unlock()
	err := errClosed
	var consuming jetstream.ConsumeContext
	if consumer != nil {
		consuming, err = consumer.Consume(p.arrived,
			jetstream.PullMaxMessages(n), jetstream.StopAfter(n),
			jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(heartbeat), jetstream.ConsumeErrHandler(p.failed))
	}
	if err != nil {
		p.fail(fmt.Errorf("asking consumer %s of stream %s for messages: %w", t.cfg.Consumer, t.cfg.Stream, err))
		return
	}
	t.mu.Lock()
	p.consuming = consuming
	t.mu.Unlock()
}

// arrived is called by nats.go for each message, one at a time; it never waits.
func (p *pull) arrived(m jetstream.Msg) {
	t := p.t
	l, err := newLoan(t, m)
	if err != nil {
		t.log.Error("a message that is none of JetStream's; ignored", "subject", m.Subject(), "error", err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.arrivals++
	if p.left--; p.left == 0 {
		delete(t.pulls, p)
	}
	if !p.ended {
		t.outstanding--
	}
	again := l.deliveries > 1
	if again && t.known(l) {
		signal(t.wake) // one less is coming than was asked for
		return
	}
	t.alive.add(l, time.Unix(0, t.clock.Load()))
	// Where order counts, nothing overtakes a message that is being looked up.
	if again || t.looking > 0 && t.cfg.OrderingToken > 0 {
		before, here := t.looked, make(chan struct{})
		t.looked = here
		t.looking++
		t.running.Go(func() { t.lookUp(l, before, here) })
		return
	}
	t.hold(l)
}

// hold makes a loan ready to be handed out; t.mu is held.
func (t *trigger) hold(l *loan) {
	t.held.put(&l.Delivery)
	if t.waiting > 0 {
		signal(t.wake)
	}
}

// known reports whether a redelivered message is in hand already, or done; t.mu
// is held. That happens after the server was away: it lent again what it thought
// lost.
func (t *trigger) known(l *loan) bool {
	if until, sent := t.again[l.sequence]; sent && time.Now().Before(until) {
		if err := l.msg.Ack(); err != nil {
			t.log.Warn("cannot acknowledge again", "message", l.message.ID, "error", err)
		}
		return true
	}
	return t.alive.has(l.sequence)
}

// lookUp finds how often a redelivered message has failed. Many are looked up at
// once; they are held in the order in which they arrived.
func (t *trigger) lookUp(l *loan, before <-chan struct{}, here chan<- struct{}) {
	defer close(here)
	failures := 0
	if l.deliveries > 1 {
		failures = t.ledger.get(t.ctx, l, t.log)
	}
	if before != nil {
		<-before
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l.recorded = failures
	l.message.Attempt = failures + 1
	t.looking--
	t.hold(l)
}

// failed is called by nats.go when a request has a problem.
func (p *pull) failed(_ jetstream.ConsumeContext, err error) {
	switch {
	case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrBadRequest):
		p.fail(fmt.Errorf("consumer %s of stream %s: %w", p.t.cfg.Consumer, p.t.cfg.Stream, err))
	case errors.Is(err, jetstream.ErrNoHeartbeat):
		signal(p.t.lost) // it may be gone; nats.go asks again meanwhile
	default:
		p.t.log.Debug("pull", "error", err)
	}
}

// fail ends a request that can't be fulfilled; the next Receive looks the
// consumer up again.
func (p *pull) fail(err error) {
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	p.forget()
	t.consumer = nil
	if t.failed == nil {
		t.failed = err
	}
	signal(t.wake)
}

// forget takes the request out of the account; t.mu is held.
func (p *pull) forget() {
	if !p.ended {
		p.ended = true
		p.t.outstanding -= p.left
	}
	delete(p.t.pulls, p)
}

// endLimit bounds the wait for what is on its way when a request is taken back.
const endLimit = time.Second

// end takes requests back, and waits for what was on its way: that is held. A
// message that is given back afterwards does not come here again.
func (t *trigger) end(pulls []*pull, atMost time.Duration) {
	if len(pulls) == 0 {
		return
	}
	for _, p := range pulls {
		p.end()
	}
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	for _, p := range pulls {
		if p.consuming == nil {
			continue
		}
		select {
		case <-p.consuming.Closed():
		case <-limit.C:
			return // the server is away, and so is the request
		}
	}
}

func (p *pull) end() {
	p.t.mu.Lock()
	p.forget()
	consuming := p.consuming
	p.t.mu.Unlock()
	if consuming != nil {
		consuming.Drain()
	}
}

// quiet is for how long nothing may come before a request is taken back: what is on its
// way then finds nobody, and the server lends it again only after AckWait. It is waited
// for that long at most longestQuiet.
const (
	quiet        = 50 * time.Millisecond
	longestQuiet = time.Second
)

// askLess takes requests back when nobody waits any more for what they asked.
func (t *trigger) askLess() {
	for end := time.Now().Add(longestQuiet); ; {
		t.mu.Lock()
		tooMany, came := t.outstanding > t.prefetch, t.arrivals
		t.mu.Unlock()
		if !tooMany {
			return
		}
		wait := time.NewTimer(quiet)
		select {
		case <-wait.C:
		case <-t.ctx.Done():
			wait.Stop()
			return
		}
		t.mu.Lock()
		calm := t.arrivals == came
		t.mu.Unlock()
		if calm || time.Now().After(end) {
			t.end(t.asked(), endLimit)
			return
		}
	}
}

// queue is a first-in first-out list.
type queue struct {
	items []*triggers.Delivery
	head  int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) put(d *triggers.Delivery) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, d)
}

func (q *queue) take(n int) []*triggers.Delivery {
	n = min(n, q.len())
	if n == 0 {
		return nil
	}
	out := make([]*triggers.Delivery, n)
	copy(out, q.items[q.head:])
	clear(q.items[q.head : q.head+n])
	if q.head += n; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return out
}
