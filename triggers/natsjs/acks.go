package natsjs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/triggers/natsjs/client"
)

// One goroutine sends acknowledgements in batches. If each caller of Settle sent its own, the
// callers would contend for the connection, which costs more than sending. Acknowledgements are
// kept until the server has confirmed them, and sent again after an outage.

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
	sending sync.Mutex    // serializes sending; locked before binding.mu
	refused atomic.Bool   // the connection refused an acknowledgement

	// Guarded by binding.mu.
	kept  [2][]acked          // by generation: since the last barrier, and since the one before it
	sent  int                 // length of the sent part of kept[0]
	woken bool                // sendLoop was woken, and has not finished
	again map[place]time.Time // acknowledgements sent again, and when each entry expires
}

// acked is an acknowledgement that is queued, or sent and not yet confirmed.
type acked struct {
	place
	reply string
}

// queueAck queues the acknowledgement of a message; a.mu is locked.
func (a *acks) queueAck(p place, reply string) {
	a.leaveIdle()
	a.kept[0] = append(a.kept[0], acked{p, reply})
	if !a.woken {
		a.woken = true
		signal(a.wake)
	}
}

// sendLoop is the goroutine that sends acknowledgements.
func (a *acks) sendLoop(ctx context.Context) {
	for {
		select {
		case <-a.wake:
			a.sendUnsent(false)
		case <-ctx.Done():
			return
		}
	}
}

// sendUnsent sends queued acknowledgements. If turn is set, the current generation becomes the
// older one, and sendUnsent returns the previous older generation.
func (a *acks) sendUnsent(turn bool) (old []acked) {
	a.sending.Lock()
	defer a.sending.Unlock()
	for {
		a.mu.Lock()
		unsent := a.kept[0][a.sent:]
		a.sent = len(a.kept[0])
		a.woken = len(unsent) > 0 && !turn
		if turn {
			old, a.kept[0], a.kept[1], a.sent = a.kept[1], nil, a.kept[0], 0
		}
		a.mu.Unlock()
		a.publish(unsent)
		if turn || len(unsent) == 0 {
			return old
		}
	}
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
