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

// receiveLoop is the goroutine that only receives. The SDK releases requested messages that arrive
// between two receive calls. So the loop requests few messages that may not exist. While
// requested messages are missing, it receives again, even without room. Between two receive calls
// it does almost nothing.
func (e *entity) receiveLoop(arrived chan<- arrival) {
	var late sync.WaitGroup
	defer func() { late.Wait(); close(arrived) }()
	t := e.t
	pause, failures := retryBackoff(), 0
	ctx, cancel := context.WithCancel(t.ctx)
	cancel() // the loop creates the first one
	var idled atomic.Bool
	var idle *time.Timer
	for t.ctx.Err() == nil {
		if ctx.Err() != nil {
			ctx, cancel = context.WithCancel(t.ctx)
			e.setPause(cancel)
			idled.Store(false)
			if idle != nil {
				idle.Stop()
			}
			if t.cfg.MaxIdle > 0 {
				end := cancel
				idle = time.AfterFunc(t.cfg.MaxIdle, func() { idled.Store(true); end() })
			}
		}
		n := e.toRequest()
		if n == 0 {
			break
		}
		if ctx.Err() != nil {
			continue // it was idle or paused while there was no room
		}
		by, began := e.link.Load(), time.Now()
		got, err := by.receiver.ReceiveMessages(ctx, n, namespace.AfterFirst(n))
		if len(got) > 0 {
			now := time.Now()
			t.inTransit.Add(int64(len(got)))
			came := arrival{got, now, by}
			if len(got) == n {
				arrived <- came
			} else {
				late.Add(1)
				time.AfterFunc(lateHandover, func() { arrived <- came; late.Done() })
			}
			e.learn(n, len(got), now.Sub(began))
			if idle != nil {
				idle.Reset(t.cfg.MaxIdle)
			}
			if failures > 0 {
				t.works(e)
				failures = 0
				pause.Reset()
			}
			continue
		}
		switch {
		case t.ctx.Err() != nil:
			e.out = n
			continue // drainLink receives the messages in transit
		case idled.Load():
			t.log.Debug("no message arrived for long; reopening the receiver", "entity", e.path(), "idle", t.cfg.MaxIdle)
			err = nil
		case ctx.Err() != nil:
			e.out = 0 // no Receive waits: the SDK releases arriving messages
			continue
		}
		e.out = 0
		failures++
		if idled.Load() || needsNewLink(err) || failures > reopenAfter {
			if broken := e.reopen(by); broken != nil {
				err = errors.Join(err, broken)
			}
		} else {
			e.lostLink(by)
		}
		if err != nil {
			t.fail(e, fmt.Errorf("receiving from %s: %w", e.path(), namespace.Explain(err, namespace.Listen)))
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
	e.drainLink(arrived)
	if e.out > 0 {
		e.detach()
	}
}

// lateHandover delays the processing of messages while more are missing. The SDK releases arriving
// messages until the next receive call begins, and waking another goroutine first would delay
// that call.
const lateHandover = 50 * time.Microsecond

func (e *entity) setPause(pause context.CancelFunc) {
	e.t.mu.Lock()
	defer e.t.mu.Unlock()
	e.pause = pause
}

// transitTime is how long a message sent before a stop may be in transit.
const transitTime = 100 * time.Millisecond

// drainLink receives the messages in transit at the end. Otherwise they would stay locked after the
// link is closed.
func (e *entity) drainLink(arrived chan<- arrival) {
	for e.out > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), transitTime)
		by := e.link.Load()
		got, _ := by.receiver.ReceiveMessages(ctx, e.out, nil)
		cancel()
		if len(got) == 0 {
			return
		}
		e.t.inTransit.Add(int64(len(got)))
		arrived <- arrival{got, time.Now(), by}
		e.out -= len(got)
	}
}

// toRequest waits until there is room for messages, or requested ones are missing. It returns the
// number of messages to receive; 0 at the end.
func (e *entity) toRequest() int {
	t := e.t
	if e.out > 0 && !t.mu.TryLock() {
		return e.out // waiting for the lock would delay the receive call
	} else if e.out == 0 {
		t.mu.Lock()
	}
	defer t.mu.Unlock()
	for t.ctx.Err() == nil {
		room := t.waiting() + t.prefetchTarget() - t.buffer.Len() - int(t.inTransit.Load())
		if room = t.cfg.Memory.More(room, e.out); room > 0 {
			room = max(min(room/len(t.entities), e.ask, maxCredit), 1)
		}
		if room > 0 || e.out > 0 {
			return max(room, e.out)
		}
		t.room.Wait()
	}
	return 0
}

// learn sets the number of messages to request next. It raises the number if all arrived as fast as
// possible, because then there is a backlog. It lowers the number if fewer arrived.
func (e *entity) learn(asked, got int, took time.Duration) {
	e.out = asked - got
	if took < e.fastest {
		e.fastest = took
	} else {
		e.fastest += e.fastest / 256 // the latency may have increased
	}
	switch {
	case e.out > 0:
		e.ask, e.fast = max(got, e.ask/2, 1), 0
	case took >= 2*e.fastest+time.Duration(got)*namespace.PerMessage:
		e.fast = 0
	case e.ask < fewAsked && e.fast < oftenFast: // a few messages that were sent together are not a backlog
		e.fast++
	default:
		e.ask, e.fast = min(8*e.ask, maxCredit), 0
	}
}

// Below fewAsked requested messages, the number is raised only when messages arrived as fast as
// possible oftenFast times in a row.
const fewAsked, oftenFast = 8, 8

// lease tracks and prefetches received messages.
func (e *entity) lease(a arrival) {
	t := e.t
	items := make([]*lease.Item[*leasedMessage], 0, len(a.got))
	for _, m := range a.got {
		l := newLeasedMessage(e, m, a.at)
		l.by = a.by
		if l.misfit != "" {
			t.running.Go(func() { e.deadLetterMisfit(l) })
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
func (e *entity) deadLetterMisfit(l *leasedMessage) {
	err := l.end(e.t.ctx, &l.message, triggers.Verdict{Kind: triggers.Reject, Reason: l.misfit})
	if e.t.ctx.Err() == nil {
		e.t.noteDead(err)
	}
	if err != nil {
		e.t.log.Warn("cannot dead-letter a message that cannot be read; it will be redelivered", "message", l.message.ID, "error", err)
		return
	}
	e.t.log.Error("message dead-lettered", "message", l.message.ID, "reason", l.misfit)
}
