package natsjs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/client"
)

// One goroutine sends acknowledgements in batches. An acknowledgement waits for ackDelay, or until
// ackBatch of them wait: each batch wakes the client, the server and its store once. A daemon that is
// killed meanwhile has the messages redelivered. Acknowledgements are kept until the server has
// confirmed them, and sent again after an outage.

const (
	// ackDelay is the longest time that an acknowledgement waits for others. Ten batches a second are
	// as many as the server's updates of the consumer's state on disk. The wait ends at a multiple of
	// it, like other waits of the daemon: the process then wakes once for all of them.
	ackDelay = 100 * time.Millisecond
	// ackBatch is the number of acknowledgements that are sent at once.
	ackBatch = 64
)

// barrierEvery is how often a round trip confirms the acknowledgements sent before it.
const barrierEvery = time.Second

// releaseDelay is the delay of messages released while the trigger ends. The server stores a
// delayed release. Without a delay, a server that stops loses the release, and redelivers the
// message only after AckWait.
const releaseDelay = time.Second

// The server's commands for an acknowledgement, a lease renewal, and a release.
var (
	ack        = []byte("+ACK")
	inProgress = []byte("+WPI")
	release    = fmt.Appendf(nil, `-NAK {"delay": %d}`, releaseDelay.Nanoseconds())
)

// acks sends the acknowledgements of a trigger, and keeps them until they are confirmed.
type acks struct {
	*binding
	wake    chan struct{} // wakes sendLoop
	delay   *time.Timer   // wakes it, too, when an acknowledgement has waited for ackDelay
	sending sync.Mutex    // serializes sending; locked before binding.mu
	refused atomic.Bool   // the connection refused an acknowledgement

	// Guarded by binding.mu.
	kept  [2][]acked          // by generation: since the last barrier, and since the one before it
	sent  int                 // length of the sent part of kept[0]
	batch int                 // how many are sent at once
	timed bool                // delay runs
	due   time.Time           // when it ends
	woken bool                // sendLoop was woken, and has not begun to send
	again map[place]time.Time // acknowledgements sent again, and when each entry expires
}

// acked is an acknowledgement that is queued, or sent and not yet confirmed.
type acked struct {
	place
	reply string
}

func newAcks(b *binding) *acks {
	a := &acks{binding: b, wake: make(chan struct{}, 1), delay: time.NewTimer(ackDelay), batch: ackBatch}
	a.delay.Stop()
	return a
}

// followSettings adopts how many acknowledgements may wait. None waits if the server might hold back
// messages, or refuse new ones, until it arrives; a.mu is locked.
func (a *acks) followSettings(stream jetstream.StreamConfig, consumer jetstream.ConsumerConfig) {
	a.batch = ackBatch
	if most := consumer.MaxAckPending; most > 0 {
		a.batch = min(a.batch, max(most/ackShare, 1))
	}
	if stream.Discard == jetstream.DiscardNew && stream.Retention != jetstream.LimitsPolicy {
		a.batch = 1
	}
}

// ackShare bounds the acknowledgements that wait to a fraction of the consumer's max ack pending.
const ackShare = 16

// queueAck queues the acknowledgement of a message; a.mu is locked.
func (a *acks) queueAck(p place, reply string) {
	a.leaveIdle()
	a.kept[0] = append(a.kept[0], acked{p, reply})
	switch {
	case a.woken:
	case len(a.kept[0])-a.sent >= a.batch:
		a.woken = true
		signal(a.wake)
	case !a.timed:
		a.timed = true
		now := time.Now()
		wait := min(now.Truncate(ackDelay).Add(ackDelay).Sub(now), time.Duration(a.ackWait.Load())/10)
		a.due = now.Add(wait)
		a.delay.Reset(wait)
	}
}

// sendLoop is the goroutine that sends acknowledgements.
func (a *acks) sendLoop(ctx context.Context) {
	defer a.delay.Stop()
	for {
		select {
		case <-a.wake:
			a.sendUnsent(false)
		case <-a.delay.C:
			a.sendUnsent(false)
		case <-ctx.Done():
			return
		}
	}
}

// sendAlong sends the acknowledgements that would be sent soon anyway, because a request for messages
// is sent now: both wake the client and the server once.
func (a *acks) sendAlong() {
	a.mu.Lock()
	soon := a.timed && time.Until(a.due) < ackDelay/2
	a.mu.Unlock()
	if soon {
		a.sendUnsent(false)
	}
}

// sendUnsent sends queued acknowledgements. If turn is set, the current generation becomes the
// older one, and sendUnsent returns the previous older generation.
func (a *acks) sendUnsent(turn bool) (old []acked) {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	unsent := a.kept[0][a.sent:]
	a.sent, a.woken, a.timed = len(a.kept[0]), false, false
	a.delay.Stop()
	if turn {
		old, a.kept[0], a.kept[1], a.sent = a.kept[1], nil, a.kept[0], 0
	}
	a.mu.Unlock()
	a.publish(unsent)
	return old
}

// publish sends acknowledgements; a.sending is locked. Acknowledgements that the connection
// refuses, or that are queued during an outage, are sent again after the reconnect.
func (a *acks) publish(all []acked) {
	if len(all) == 0 {
		return
	}
	a.mu.Lock()
	sure := a.isVerified()
	a.mu.Unlock()
	for _, one := range all {
		if !sure || !a.conn.Conn().IsConnected() {
			a.refused.Store(true)
			return
		}
		if err := a.conn.Conn().Publish(one.reply, ack); err != nil {
			if !a.refused.Swap(true) {
				a.log.Warn("cannot send acknowledgements; will try again when the server is back", "error", err)
			}
			return
		}
	}
}

// barrier waits for the server to confirm the older generation, and drops it. Later
// acknowledgements are kept, to be sent again after an outage.
func (a *acks) barrier(ctx context.Context) {
	a.mu.Lock()
	none := len(a.kept[0])+len(a.kept[1]) == 0
	for p, until := range a.again {
		if time.Now().After(until) {
			delete(a.again, p)
		}
	}
	sure := a.isVerified()
	a.mu.Unlock()
	if none || !sure {
		return
	}
	if a.refused.Load() {
		a.resend()
	}
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	// An acknowledgement sent during the flush may not be covered by it. So the generations turn
	// before the flush, and the older one is dropped after it.
	old := a.sendUnsent(true)
	if a.conn.Conn().FlushWithContext(ctx) != nil || a.refused.Load() {
		a.mu.Lock()
		a.kept[1] = append(old, a.kept[1]...)
		a.mu.Unlock()
	}
}

// resend repeats the acknowledgements that an outage may have lost. Acknowledging twice
// has no effect at the server.
func (a *acks) resend() {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	var all []acked
	for i := range a.kept {
		all = append(all, a.kept[i]...)
	}
	if a.again == nil {
		a.again = make(map[place]time.Time)
	}
	until := time.Now().Add(2*time.Duration(a.ackWait.Load()) + 10*time.Second)
	for _, one := range all {
		a.again[one.place] = until
	}
	a.mu.Unlock()
	a.refused.Store(false)
	if a.publish(all); len(all) > 0 && !a.refused.Load() {
		a.log.Info("sent the last acknowledgements again", "count", len(all))
	}
}

// dropAll deletes all acknowledgements and returns their number; a.mu is locked.
func (a *acks) dropAll() (kept int) {
	kept = a.count()
	a.kept, a.sent, a.again = [2][]acked{}, 0, nil
	return kept
}

// count returns the number of unconfirmed acknowledgements; a.mu is locked.
func (a *acks) count() int { return len(a.kept[0]) + len(a.kept[1]) }

// wasResent reports whether the acknowledgement of a message was sent again recently; a.mu is
// locked.
func (a *acks) wasResent(p place) bool {
	until, sent := a.again[p]
	return sent && time.Now().Before(until)
}
