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
)

// patience paces what is tried again for ever.
func patience() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
}

// reopenAfter is how many failures in a row the SDK is left to mend by itself.
const reopenAfter = 3

// beyondRepair reports whether the SDK does not come back from an error with the
// same client, or not to another end.
func beyondRepair(err error) bool {
	var e *azservicebus.Error
	return err != nil && (!errors.As(err, &e) || e.Code != azservicebus.CodeConnectionLost && e.Code != azservicebus.CodeTimeout)
}

// arrival is what one receiving brought.
type arrival struct {
	got []*azservicebus.ReceivedMessage
	at  time.Time
	by  *link
}

// firstAsk is what is asked for at the start, at most.
const firstAsk = 1

// afterFirst is how long is waited for more when one message has come: what n
// messages take at most that are there.
func afterFirst(n int) *azservicebus.ReceiveMessagesOptions {
	return &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: 5*time.Millisecond + time.Duration(n)*perMessage}
}

// fetch is the goroutine that receives, and does nothing else. What the SDK has
// asked for and gets between two receivings it gives back, unseen. So little is
// asked for that does not come; as long as something is still to come fetch goes
// on, whatever room there is; and between two receivings it does next to nothing.
func (e *entity) fetch(arrived chan<- arrival) {
	var late sync.WaitGroup
	defer func() { late.Wait(); close(arrived) }()
	t := e.t
	pause, failures := patience(), 0
	ctx, cancel := context.WithCancel(t.ctx)
	cancel() // the first one is made below
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
		n := e.wanted()
		if n == 0 {
			break
		}
		if ctx.Err() != nil {
			continue // it was idle, or unwanted, while there was no room
		}
		by, began := e.link.Load(), time.Now()
		got, err := by.receiver.ReceiveMessages(ctx, n, afterFirst(n))
		if len(got) > 0 {
			now := time.Now()
			t.coming.Add(int64(len(got)))
			came := arrival{got, now, by}
			if len(got) == n {
				arrived <- came
			} else {
				late.Add(1)
				time.AfterFunc(handOver, func() { arrived <- came; late.Done() })
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
			continue // rest sees to what is on its way
		case idled.Load():
			t.log.Debug("no message came for long; opening the receiver anew", "entity", e.path(), "idle", t.cfg.MaxIdle)
			err = nil
		case ctx.Err() != nil:
			e.out = 0 // nobody waits: the SDK gives back what comes
			continue
		}
		e.out = 0
		failures++
		if idled.Load() || beyondRepair(err) || failures > reopenAfter {
			if broken := e.reopen(by); broken != nil {
				err = errors.Join(err, broken)
			}
		} else {
			e.lostLink(by)
		}
		if err != nil {
			t.fail(e, fmt.Errorf("receiving from %s: %w", e.path(), explain(err, listen)))
		}
		if idled.Load() {
			failures = 0
			continue
		}
		// The SDK comes back with nothing at once, over and over, while a link
		// cannot be had.
		select {
		case <-time.After(pause.NextBackOff()):
		case <-t.ctx.Done():
		}
	}
	cancel()
	if idle != nil {
		idle.Stop()
	}
	e.rest(arrived)
	if e.out > 0 {
		e.detach()
	}
}

// handOver is how long messages wait to be taken in where more are still to come.
// The SDK has begun to give back what comes, and stops when the next receiving
// begins; to wake another goroutine first would keep it from stopping.
const handOver = 50 * time.Microsecond

func (e *entity) setPause(pause context.CancelFunc) {
	e.t.mu.Lock()
	defer e.t.mu.Unlock()
	e.pause = pause
}

// onTheWay is how long a message takes that was sent before a stop.
const onTheWay = 100 * time.Millisecond

// rest receives what is on its way at the end: when the link is closed it would
// stay locked.
func (e *entity) rest(arrived chan<- arrival) {
	for e.out > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), onTheWay)
		by := e.link.Load()
		got, _ := by.receiver.ReceiveMessages(ctx, e.out, nil)
		cancel()
		if len(got) == 0 {
			return
		}
		e.t.coming.Add(int64(len(got)))
		arrived <- arrival{got, time.Now(), by}
		e.out -= len(got)
	}
}

// wanted waits until there is room or something is still to come, and returns how
// much; 0 at the end.
func (e *entity) wanted() int {
	t := e.t
	if e.out > 0 && !t.mu.TryLock() {
		return e.out // there is no time to wait
	} else if e.out == 0 {
		t.mu.Lock()
	}
	defer t.mu.Unlock()
	for t.ctx.Err() == nil {
		room := t.waiting + t.prefetch() - len(t.held) - int(t.coming.Load())
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

// learn sets what is asked for next. More, where all came as fast as it can: then
// there is a backlog. Less, where less came.
func (e *entity) learn(asked, got int, took time.Duration) {
	e.out = asked - got
	if took < e.fastest {
		e.fastest = took
	} else {
		e.fastest += e.fastest / 256 // the way may have become longer
	}
	switch {
	case e.out > 0:
		e.ask, e.fast = max(got, e.ask/2, 1), 0
	case took >= 2*e.fastest+time.Duration(got)*perMessage:
		e.fast = 0
	case e.ask < fewAsked && e.fast < oftenFast: // a few that were sent together are no backlog
		e.fast++
	default:
		e.ask, e.fast = min(8*e.ask, maxCredit), 0
	}
}

// Where less than fewAsked are asked for, more are when messages came as fast as
// they can for oftenFast times in a row.
const fewAsked, oftenFast = 8, 8

// perMessage is what a message takes at most that follows another.
const perMessage = 30 * time.Microsecond

// lend takes in what came.
func (e *entity) lend(a arrival) {
	t := e.t
	ls := make([]*loan, 0, len(a.got))
	for _, m := range a.got {
		l := newLoan(e, m, a.at)
		l.by = a.by
		if l.misfit != "" {
			t.running.Go(func() { e.bury(l) })
			continue
		}
		ls = append(ls, l)
	}
	t.mu.Lock()
	sooner := false
	for _, l := range ls {
		t.loans[l] = struct{}{}
		sooner = sooner || l.renewAt.Before(t.nextCare)
	}
	t.coming.Add(-int64(len(a.got)))
	t.hand(ls...)
	if len(ls) < len(a.got) {
		t.room.Broadcast()
	}
	t.mu.Unlock()
	if sooner {
		signal(t.added)
	}
}

// bury moves a message that no function can have to the dead letters.
func (e *entity) bury(l *loan) {
	err := l.end(e.t.ctx, &l.message, triggers.Verdict{Kind: triggers.Reject, Reason: l.misfit})
	if e.t.ctx.Err() == nil {
		e.t.noteDead(err)
	}
	if err != nil {
		e.t.log.Warn("a message that cannot be read is not in the dead letters yet; it will come again", "message", l.message.ID, "error", err)
		return
	}
	e.t.log.Error("message dead-lettered", "message", l.message.ID, "reason", l.misfit)
}
