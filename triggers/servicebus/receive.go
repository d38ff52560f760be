package servicebus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// retryBackoff returns the backoff of endless retries.
func retryBackoff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
}

// reopenAfter is the number of failures in a row after which drover, not the SDK, reconnects.
const reopenAfter = 3

// needsNewLink reports whether the SDK cannot recover from an error with the same client.
func needsNewLink(err error) bool {
	var e *azservicebus.Error
	return err != nil && (!errors.As(err, &e) || e.Code != azservicebus.CodeConnectionLost && e.Code != azservicebus.CodeTimeout)
}

// arrival is the result of one receive call.
type arrival struct {
	got []*azservicebus.ReceivedMessage
	at  time.Time
	by  *link
}

// firstAsk bounds the requested messages at the start.
const firstAsk = 1

// receiver receives the messages of an entity without sessions, and leases them.
type receiver struct {
	*entity
	arrived chan arrival
	pause   context.CancelFunc // cancels the current receive call; guarded by t.mu

	// Used by receiveLoop only.
	ask     int           // bound of the next request, in messages
	out     int           // messages requested that have not arrived
	fast    int           // number of times in a row that messages arrived as fast as possible
	fastest time.Duration // shortest time of a receive call; at first, a round trip
}

func newReceiver(e *entity) *receiver {
	return &receiver{entity: e, arrived: make(chan arrival, 4), ask: firstAsk, fast: oftenFast, fastest: e.roundTrip}
}

// receiveLoop is the goroutine that only receives. The SDK releases requested messages that arrive
// between two receive calls. So the loop requests few messages that may not exist. While
// requested messages are missing, it receives again, even without room. Between two receive calls
// it does almost nothing.
func (r *receiver) receiveLoop() {
	var late sync.WaitGroup
	defer func() { late.Wait(); close(r.arrived) }()
	t := r.t
	pause, failures := retryBackoff(), 0
	ctx, cancel := context.WithCancel(t.ctx)
	cancel() // the loop creates the first one
	var idled atomic.Bool
	var idle *time.Timer
	for t.ctx.Err() == nil {
		if ctx.Err() != nil {
			ctx, cancel = context.WithCancel(t.ctx)
			r.setPause(cancel)
			idled.Store(false)
			if idle != nil {
				idle.Stop()
			}
			if t.cfg.MaxIdle > 0 {
				end := cancel
				idle = time.AfterFunc(t.cfg.MaxIdle, func() { idled.Store(true); end() })
			}
		}
		n := r.toRequest()
		if n == 0 {
			break
		}
		if ctx.Err() != nil {
			continue // it was idle or paused while there was no room
		}
		by, began := r.current.Load(), time.Now()
		got, err := by.receiver.ReceiveMessages(ctx, n, namespace.AfterFirst(n))
		if len(got) > 0 {
			now := time.Now()
			t.inTransit.Add(int64(len(got)))
			came := arrival{got, now, by}
			if len(got) == n {
				r.arrived <- came
			} else {
				late.Add(1)
				time.AfterFunc(lateHandover, func() { r.arrived <- came; late.Done() })
			}
			r.learn(n, len(got), now.Sub(began))
			if idle != nil {
				idle.Reset(t.cfg.MaxIdle)
			}
			if failures > 0 {
				t.works(r.address)
				failures = 0
				pause.Reset()
			}
			continue
		}
		switch {
		case t.ctx.Err() != nil:
			r.out = n
			continue // drainLink receives the messages in transit
		case idled.Load():
			t.log.Debug("no message arrived for long; reopening the receiver", "entity", r.path(), "idle", t.cfg.MaxIdle)
			err = nil
		case ctx.Err() != nil:
			r.out = 0 // no Receive waits: the SDK releases arriving messages
			continue
		}
		r.out = 0
		failures++
		if idled.Load() || needsNewLink(err) || failures > reopenAfter {
			if broken := r.reopen(by); broken != nil {
				err = errors.Join(err, broken)
			}
		} else {
			r.lostLink(by)
		}
		if err != nil {
			t.fail(r.address, fmt.Errorf("receiving from %s: %w", r.path(), namespace.Explain(err, namespace.Listen)))
		}
		if idled.Load() {
			failures = 0
			continue
		}
		// Without a link, the SDK returns at once without messages.
		select {
		case <-time.After(pause.NextBackOff()):
		case <-t.ctx.Done():
		}
	}
	cancel()
	if idle != nil {
		idle.Stop()
	}
	r.drainLink()
	if r.out > 0 {
		r.detach()
	}
}

// lateHandover delays the processing of messages while more are missing. The SDK releases arriving
// messages until the next receive call begins, and waking another goroutine first would delay
// that call.
const lateHandover = 50 * time.Microsecond

func (r *receiver) setPause(pause context.CancelFunc) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	r.pause = pause
}

// transitTime is how long a message sent before a stop may be in transit.
const transitTime = 100 * time.Millisecond

// drainLink receives the messages in transit at the end. Otherwise they would stay locked after the
// link is closed.
func (r *receiver) drainLink() {
	for r.out > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), transitTime)
		by := r.current.Load()
		got, _ := by.receiver.ReceiveMessages(ctx, r.out, nil)
		cancel()
		if len(got) == 0 {
			return
		}
		r.t.inTransit.Add(int64(len(got)))
		r.arrived <- arrival{got, time.Now(), by}
		r.out -= len(got)
	}
}

// toRequest waits until there is room for messages, or requested ones are missing. It returns the
// number of messages to receive; 0 at the end.
func (r *receiver) toRequest() int {
	t := r.t
	if r.out > 0 && !t.mu.TryLock() {
		return r.out // waiting for the lock would delay the receive call
	} else if r.out == 0 {
		t.mu.Lock()
	}
	defer t.mu.Unlock()
	for t.ctx.Err() == nil {
		room := t.waiting() + t.prefetchTarget() - t.buffer.Len() - int(t.inTransit.Load())
		if room = t.cfg.Memory.More(room, r.out); room > 0 {
			room = max(min(room/t.entityCount, r.ask, maxCredit), 1)
		}
		if room > 0 || r.out > 0 {
			return max(room, r.out)
		}
		t.room.Wait()
	}
	return 0
}

// learn sets the number of messages to request next. It raises the number if all arrived as fast as
// possible, because then there is a backlog. It lowers the number if fewer arrived.
func (r *receiver) learn(asked, got int, took time.Duration) {
	r.out = asked - got
	if took < r.fastest {
		r.fastest = took
	} else {
		r.fastest += r.fastest / 256 // the latency may have increased
	}
	switch {
	case r.out > 0:
		r.ask, r.fast = max(got, r.ask/2, 1), 0
	case took >= 2*r.fastest+time.Duration(got)*namespace.PerMessage:
		r.fast = 0
	case r.ask < fewAsked && r.fast < oftenFast: // a few messages that were sent together are not a backlog
		r.fast++
	default:
		r.ask, r.fast = min(8*r.ask, maxCredit), 0
	}
}

// Below fewAsked requested messages, the number is raised only when messages arrived as fast as
// possible oftenFast times in a row.
const fewAsked, oftenFast = 8, 8

// leaseLoop leases what receiveLoop receives, until that ends.
func (r *receiver) leaseLoop() {
	for a := range r.arrived {
		r.lease(a)
	}
}

// lease tracks and prefetches received messages.
func (r *receiver) lease(a arrival) {
	t := r.t
	items := make([]*lease.Item[*leasedMessage], 0, len(a.got))
	for _, m := range a.got {
		l := newLeasedMessage(r.entity, m, a.at)
		l.by = a.by
		if l.misfit != "" {
			t.running.Go(func() { r.deadLetterMisfit(l) })
			continue
		}
		items = append(items, &l.Item)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range items {
		t.keeper.Track(i)
	}
	t.inTransit.Add(-int64(len(a.got)))
	t.buffer.Add(items...)
	if len(items) < len(a.got) {
		t.room.Broadcast()
	}
}

// deadLetterMisfit dead-letters a message that no function can receive.
func (r *receiver) deadLetterMisfit(l *leasedMessage) {
	err := l.end(r.t.ctx, &l.message, triggers.Verdict{Kind: triggers.Reject, Reason: l.misfit})
	if r.t.ctx.Err() == nil {
		r.t.noteDead(err)
	}
	if err != nil {
		r.t.log.Warn("cannot dead-letter a message that cannot be read; it will be redelivered", "message", l.message.ID, "error", err)
		return
	}
	r.t.log.Error("message dead-lettered", "message", l.message.ID, "reason", l.misfit)
}
