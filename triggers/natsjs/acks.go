package natsjs

import (
	"context"
	"fmt"
	"time"
)

// Acknowledgements are sent by one goroutine, many at a time: those who settle
// would wait for each other at the connection, which costs more than the sending.
// They are kept until the server must have them, and sent again after an outage.

// barrierEvery is how often a round trip confirms the acknowledgements that were
// sent before it.
const barrierEvery = time.Second

// releaseDelay is when a message that is given back at the end is lent again. A delay is
// written to the server's store; without one a server that ends forgets that the message is
// ready, and lends it only when its loan would have run out.
const releaseDelay = time.Second

// What the server takes for an acknowledgement, for a sign of life, and for a message that is
// given back.
var (
	ack        = []byte("+ACK")
	inProgress = []byte("+WPI")
	release    = fmt.Appendf(nil, `-NAK {"delay": %d}`, releaseDelay.Nanoseconds())
)

// acked is an acknowledgement that is to be sent, or was and perhaps never
// arrived.
type acked struct {
	place
	reply string
}

// acknowledge has a message acknowledged; t.mu is held.
func (t *trigger) acknowledge(l *loan) {
	t.stir()
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

// sendUnsent sends what was not sent yet. Where turn is set, that and all before
// it becomes the older generation, and the one that was is returned.
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

// publish sends acknowledgements; t.sending is held. What the connection refuses, and what
// comes up while it is away, is sent again with all others when it is back.
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
				t.log.Warn("cannot send acknowledgements; will try again when the server is there", "error", err)
			}
			return
		}
	}
}

// barrier makes sure that the server has the acknowledgements of the generation
// before the last; those after it are kept, to be sent again after an outage.
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
		t.sendAgain()
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	// What is acknowledged while the flush is under way may be behind it, so
	// the generations turn before it, and the older is dropped after it.
	old := t.sendUnsent(true)
	if t.conn.nc.FlushWithContext(ctx) != nil || t.refused.Load() {
		t.mu.Lock()
		t.acked[1] = append(old, t.acked[1]...)
		t.mu.Unlock()
	}
}

// reconnected is called by the connection.
func (t *trigger) reconnected() { signal(t.nudge) }

// sendAgain repeats the acknowledgements that the outage may have swallowed. The
// server takes one twice without harm.
func (t *trigger) sendAgain() {
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
