package natsjs

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// quiet is the time without a message after which requests are withdrawn. A message in transit
// at that moment has no receiver, and is redelivered only after AckWait. longestQuiet bounds the
// wait for such a pause.
const (
	quiet        = 50 * time.Millisecond
	longestQuiet = time.Second
)

// intake brings messages in: it requests them, tracks their leases, reads their failures, and
// prefetches them in the order in which they arrived. Prefetched and requested messages together
// match those that a blocked Receive requests, plus the size of the prefetch. binding.mu guards it.
type intake struct {
	*binding
	settler      *settler
	prefetch     *prefetch
	requests     *requests
	readFailures func(ctx context.Context, m ledger.Message, deliveries uint64) int

	delivered uint64           // the number of the consumer's last delivery
	highest   uint64           // the highest sequence received
	unsure    []*leasedMessage // arrived, but possibly of another life
	strays    *strays          // nil unless some are missing
	looking   int              // arrived, and being looked up in the ledger
	looked    <-chan struct{}  // closed when the last lookup has finished
	waiting   int              // messages that a blocked Receive requests
}

func newIntake(s *settler) *intake {
	i := &intake{binding: s.binding, settler: s, prefetch: s.prefetch, readFailures: s.ledger.Read}
	i.requests = &requests{binding: s.binding, accept: i.accept}
	return i
}

// seen returns the highest sequence received so far.
func (i *intake) seen() uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.highest
}

// expect makes arriving messages wake a caller that waits for n of them.
func (i *intake) expect(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting = n
}

// coming returns the number of messages that are requested, or being looked up; i.mu is locked.
func (i *intake) coming() int { return i.looking + i.requests.outstanding() }

// requestMore requests messages once most of them are used up, which keeps the number of requests
// low, and reports whether it did; i.mu is locked.
func (i *intake) requestMore() (asked bool) {
	target := i.prefetch.size + i.waiting
	have := i.prefetch.len() + i.coming()
	least := target / 2
	if i.conn.IsEmbedded() { // it answers at once
		least = target / 4
	}
	if i.ending || i.consumer == nil || i.strays != nil || have > least || have >= target || !i.isVerified() {
		return false
	}
	coming := i.requests.outstanding()
	n := i.cfg.Memory.Within(maxAsked, i.cfg.Memory.More(target-have, coming), coming)
	if n > 0 {
		i.requests.pull(n)
	}
	return n > 0
}

// accept handles an arrived message.
func (i *intake) accept(f *flow, m *nats.Msg) {
	l, err := newLeasedMessage(i.settler, m)
	if err != nil {
		i.log.Error("ignored a message that is not from JetStream", "subject", m.Subject, "error", err)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.leaveIdle()
	i.requests.countArrival(f)
	i.admit(l)
}

// admit tracks and prefetches a message; i.mu is locked.
func (i *intake) admit(l *leasedMessage) {
	if i.life == nil || l.delivery <= i.delivered || i.cfg.OrderingToken > 0 && i.isDoubtful() {
		// The consumer numbers from 1 again, so it may be a new one. The message waits until
		// the life is verified. With an ordering key it also waits after an outage, which may
		// have lost messages before it.
		i.unsure = append(i.unsure, l)
		signal(i.wakeKeeper)
		return
	}
	i.delivered, i.highest = l.delivery, max(i.highest, l.Sequence)
	l.life = i.life
	again := l.deliveries > 1
	if again && i.settler.isKnown(l) {
		signal(i.wakeReceive) // one fewer of the requested messages will arrive
		return
	}
	i.settler.leases.add(l, time.Unix(0, i.clock.Load()))
	i.settler.record(l)
	// With an ordering key, no message overtakes one that is being looked up.
	if again || i.looking > 0 && i.cfg.OrderingToken > 0 {
		before, here := i.looked, make(chan struct{})
		i.looked = here
		i.looking++
		i.running.Go(func() { i.lookUp(l, before, here) })
		return
	}
	i.addPrefetched(l)
}

// isDoubtful reports whether the connection was lost since the life was verified, or earlier
// messages wait for the verification; i.mu is locked.
func (i *intake) isDoubtful() bool {
	return len(i.unsure) > 0 || i.conn.Conn().Stats().Reconnects != i.checked
}

// lookUp reads the failures of a redelivered message. Lookups run concurrently; the messages
// are prefetched in the order in which they arrived.
func (i *intake) lookUp(l *leasedMessage, before <-chan struct{}, here chan<- struct{}) {
	defer close(here)
	failures := 0
	if l.deliveries > 1 {
		failures = i.readFailures(i.ctx, l.counted(), l.deliveries)
	}
	if before != nil {
		<-before
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	l.recorded = failures
	l.message.Attempt = failures + 1
	i.looking--
	if l.life != i.life { // its stream was recreated
		signal(i.wakeReceive)
		return
	}
	i.addPrefetched(l)
}

// addPrefetched makes a lease ready for Receive; i.mu is locked.
func (i *intake) addPrefetched(l *leasedMessage) {
	if i.strays != nil {
		i.strays.keep(l)
		return
	}
	i.prefetch.put(&l.Delivery)
	if i.waiting > 0 {
		signal(i.wakeReceive)
	}
}

// withdrawAll withdraws the requests. While the server is connected, it waits longer: messages
// that arrive later would not be released.
func (i *intake) withdrawAll() {
	if i.conn.Conn().IsConnected() {
		i.requests.withdraw(client.RequestLimit)
	} else {
		i.requests.withdraw(withdrawLimit)
	}
}

// withdrawWhenQuiet withdraws requests when no Receive waits. With an ordering key they stay, and
// arriving messages are kept for the next Receive: a message without a receiver would be
// redelivered behind later ones of its key.
func (i *intake) withdrawWhenQuiet() {
	if i.cfg.OrderingToken > 0 {
		return
	}
	for end := time.Now().Add(longestQuiet); ; {
		i.mu.Lock()
		tooMany, came := i.requests.outstanding() > i.prefetch.size, i.requests.arrivals
		i.mu.Unlock()
		if !tooMany {
			return
		}
		wait := time.NewTimer(quiet)
		select {
		case <-wait.C:
		case <-i.ctx.Done():
			wait.Stop()
			return
		}
		i.mu.Lock()
		calm := i.requests.arrivals == came
		i.mu.Unlock()
		if calm || time.Now().After(end) {
			i.requests.withdraw(withdrawLimit)
			return
		}
	}
}
