package natsjs

import (
	"context"
	"fmt"
	"time"
)

// One goroutine sends acknowledgements, many at a time. If each caller of Settle sent its own,
// they would wait for each other at the connection, which costs more than sending. They are
// kept until the server has confirmed them, and sent again after an outage.

// barrierEvery is how often a round trip confirms the acknowledgements sent before it.
const barrierEvery = time.Second

// releaseDelay is the delay of messages released at the end. The server stores a delay.
// Without one, a server that stops loses the release, and redelivers the message only after
// AckWait.
const releaseDelay = time.Second

// The server's commands for an acknowledgement, a lease renewal, and a release.
var (
	ack        = []byte("+ACK")
	inProgress = []byte("+WPI")
	release    = fmt.Appendf(nil, `-NAK {"delay": %d}`, releaseDelay.Nanoseconds())
)

// acked is an acknowledgement that is to be sent, or was sent and is not confirmed.
type acked struct {
	place
	reply string
}

// acknowledge queues the acknowledgement of a message; t.mu is locked.
func (t *trigger) acknowledge(l *leasedMessage) {
	t.leaveIdle()
	t.acked[0] = append(t.acked[0], acked{l.place(), l.msg.Reply})
	if !t.acking {
		t.acking = true
		signal(t.toAck)
	}
}

// sendAcks is the goroutine that sends acknowledgements.
func (t *trigger) sendAcks(ctx context.Context) {
	for {
		select {
		case <-t.toAck:
			t.sendUnsent(false)
		case <-ctx.Done():
			return
		}
	}
}

// sendUnsent sends queued acknowledgements. If turn is set, they and all before them become
// the older generation, and the previous older one is returned.
func (t *trigger) sendUnsent(turn bool) (old []acked) {
	t.sending.Lock()
	defer t.sending.Unlock()
	for {
		t.mu.Lock()
		unsent := t.acked[0][t.sent:]
		t.sent = len(t.acked[0])
		t.acking = len(unsent) > 0 && !turn
		if turn {
			old, t.acked[0], t.acked[1], t.sent = t.acked[1], nil, t.acked[0], 0
		}
		t.mu.Unlock()
		t.publish(unsent)
		if turn || len(unsent) == 0 {
			return old
		}
	}
}

// publish sends acknowledgements; t.sending is locked. Those that the connection refuses, and
// those queued while it is down, are sent again with all others when it is back.
func (t *trigger) publish(all []acked) {
	if len(all) == 0 {
		return
	}
	t.mu.Lock()
	sure := t.verified()
	t.mu.Unlock()
	for _, a := range all {
		if !sure || !t.conn.nc.IsConnected() {
			t.refused.Store(true)
			return
		}
		if err := t.conn.nc.Publish(a.reply, ack); err != nil {
			if !t.refused.Swap(true) {
				t.log.Warn("cannot send acknowledgements; will try again when the server is back", "error", err)
			}
			return
		}
	}
}

// barrier confirms the acknowledgements of the older generation. Later ones are kept, to be
// sent again after an outage.
func (t *trigger) barrier(ctx context.Context) {
	t.mu.Lock()
	none := len(t.acked[0])+len(t.acked[1]) == 0
	for p, until := range t.again {
		if time.Now().After(until) {
			delete(t.again, p)
		}
	}
	sure := t.verified()
	t.mu.Unlock()
	if none || !sure {
		return
	}
	if t.refused.Load() {
		t.resendAcks()
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	// An acknowledgement sent during the flush may be behind it. So the generations turn
	// before the flush, and the older one is dropped after it.
	old := t.sendUnsent(true)
	if t.conn.nc.FlushWithContext(ctx) != nil || t.refused.Load() {
		t.mu.Lock()
		t.acked[1] = append(old, t.acked[1]...)
		t.mu.Unlock()
	}
}

// reconnected is called by the connection when it is up again.
func (t *trigger) reconnected() { signal(t.wakeUp) }

// resendAcks repeats the acknowledgements that an outage may have lost. Acknowledging twice
// has no effect at the server.
func (t *trigger) resendAcks() {
	t.sending.Lock()
	defer t.sending.Unlock()
	t.mu.Lock()
	var all []acked
	for i := range t.acked {
		all = append(all, t.acked[i]...)
	}
	if t.again == nil {
		t.again = make(map[place]time.Time)
	}
	until := time.Now().Add(2*time.Duration(t.ackWait.Load()) + 10*time.Second)
	for _, a := range all {
		t.again[a.place] = until
	}
	t.mu.Unlock()
	t.refused.Store(false)
	if t.publish(all); len(all) > 0 && !t.refused.Load() {
		t.log.Info("sent the last acknowledgements again", "count", len(all))
	}
}
