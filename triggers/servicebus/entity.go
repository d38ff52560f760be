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

// entity is a queue or a subscription, and what receives from it. It has a
// client of its own: an error of one entity ends a client's whole connection.
type entity struct {
	t                          *trigger
	queue, topic, subscription string

	// link is the one that messages come by, as far as is known: a message is
	// settled over its own only while that is likely to be there.
	link  atomic.Pointer[link]
	admin *inspector    // nil where the right Manage was not granted
	lock  time.Duration // of a message; 0 where only the admin API knows
	// copies sends what is retried by a copy, over the client copiesBy.
	sending  sync.Mutex
	copies   *azservicebus.Sender
	copiesBy *azservicebus.Client

	// Guarded by t.mu.
	failing  error
	pause    context.CancelFunc // of the receiving that goes on
	sessions int                // that are held
	// inSessions counts the messages that they have.
	inSessions int

	// fetch's own.
	ask int // what it asks for next, at most
	out int // asked for, and not come
}

// link is a client, its receiver, and their connection; its context ends when
// that is known to be gone. After that the SDK may have another connection
// under the same client, which is another link.
type link struct {
	client   *azservicebus.Client
	receiver *azservicebus.Receiver // nil where there are sessions
	ctx      context.Context
	gone     context.CancelFunc
	users    *sync.WaitGroup // sessions that go on over the client
}

func (e *entity) path() string {
	if e.queue != "" {
		return e.queue
	}
	return e.topic + "/Subscriptions/" + e.subscription
}

// dial makes a client, which connects when it is first used.
func (e *entity) dial() (*link, error) {
	client, err := e.t.cfg.Access.client()
	if err != nil {
		return nil, err
	}
	l := &link{client: client, users: new(sync.WaitGroup)}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if e.t.cfg.Sessions {
		return l, nil
	}
	if l.receiver, err = e.newReceiver(client); err != nil {
		l.gone()
		return nil, errors.Join(err, client.Close(context.Background()))
	}
	return l, nil
}

func (e *entity) newReceiver(client *azservicebus.Client) (*azservicebus.Receiver, error) {
	if e.queue != "" {
		return client.NewReceiverForQueue(e.queue, nil)
	}
	return client.NewReceiverForSubscription(e.topic, e.subscription, nil)
}

// lostLink notes that the connection was lost. The SDK makes another.
func (e *entity) lostLink(old *link) {
	l := *old
	l.ctx, l.gone = context.WithCancel(context.Background())
	if !e.link.CompareAndSwap(old, &l) {
		l.gone()
	}
	old.gone()
}

// reopen replaces a client, which takes up a secret that was changed.
func (e *entity) reopen(old *link) error {
	l, err := e.dial()
	if err != nil {
		return err
	}
	if !e.link.CompareAndSwap(old, l) {
		l.gone()
		return l.client.Close(e.t.ctx) // somebody else did
	}
	old.gone()
	e.t.running.Go(func() {
		old.users.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		_ = old.client.Close(ctx) // it is broken, or was idle
	})
	return nil
}

func (e *entity) close(ctx context.Context) error {
	l := e.link.Load()
	defer l.gone()
	errs := []error{}
	if e.admin != nil {
		e.admin.done()
	}
	if l.receiver != nil {
		errs = append(errs, l.receiver.Close(ctx))
	}
	return errors.Join(append(errs, l.client.Close(ctx))...)
}

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
const firstAsk = 64

// afterFirst is how long is waited for more when one message has come.
const afterFirst = 5 * time.Millisecond

// fetch is the goroutine that receives, and does nothing else: what the SDK has
// asked for and nobody takes it gives back, unseen. So it goes on as long as
// anything that was asked for has not come.
func (e *entity) fetch(arrived chan<- arrival) {
	defer close(arrived)
	t := e.t
	pause, failures := patience(), 0
	for {
		n, ctx, cancel := e.wanted()
		if n == 0 {
			e.rest(arrived)
			return
		}
		idle, stop := ctx, context.CancelFunc(func() {})
		if t.cfg.MaxIdle > 0 {
			idle, stop = context.WithTimeout(ctx, t.cfg.MaxIdle)
		}
		by := e.link.Load()
		got, err := by.receiver.ReceiveMessages(idle, n, &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: afterFirst})
		e.pass(arrived, got, by)
		cancelled, idled := ctx.Err() != nil, ctx.Err() == nil && idle.Err() != nil
		stop()
		cancel()
		e.learn(n, len(got))
		switch {
		case len(got) > 0:
			if failures > 0 {
				t.works(e)
			}
			failures = 0
			pause.Reset()
			continue
		case cancelled:
			if t.ctx.Err() == nil {
				e.out = 0 // the SDK gives back what comes
			}
			continue
		case idled:
			t.log.Debug("no message came for long; opening the receiver anew", "entity", e.path(), "idle", t.cfg.MaxIdle)
			err = nil
		}
		e.out = 0
		failures++
		if idled || beyondRepair(err) || failures > reopenAfter {
			if broken := e.reopen(by); broken != nil {
				err = errors.Join(err, broken)
			}
		} else {
			e.lostLink(by)
		}
		if err != nil {
			t.fail(e, fmt.Errorf("receiving from %s: %w", e.path(), explain(err, listen)))
		}
		if idled {
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
}

// pass gives what came to lend, and loses no time with it: until the next
// receiving the SDK gives back what comes.
func (e *entity) pass(arrived chan<- arrival, got []*azservicebus.ReceivedMessage, by *link) {
	if len(got) == 0 {
		return
	}
	e.t.mu.Lock()
	e.t.coming += len(got)
	e.t.mu.Unlock()
	arrived <- arrival{got, time.Now(), by}
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
		e.pass(arrived, got, by)
		e.out -= len(got)
	}
}

// wanted waits until there is room, and returns how much; 0 at the end.
func (e *entity) wanted() (n int, ctx context.Context, cancel context.CancelFunc) {
	t := e.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if t.ctx.Err() != nil {
			return 0, nil, nil
		}
		room := t.waiting + t.prefetch() - len(t.held) - t.coming
		if room > 0 {
			room = max(room/len(t.entities), 1)
		}
		if n = max(min(room, e.ask, maxCredit), e.out); n > 0 {
			ctx, e.pause = context.WithCancel(t.ctx)
			return n, ctx, e.pause
		}
		t.room.Wait()
	}
}

// learn sets what is asked for next: all that there is room for where there is
// more than that, else as much as there was, so that little is asked for that
// does not come.
func (e *entity) learn(asked, got int) {
	e.out = asked - got
	if e.out == 0 {
		e.ask = min(4*e.ask, maxCredit)
	} else {
		e.ask = max(got, 1)
	}
}

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
	t.coming -= len(a.got)
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
	if err != nil {
		e.t.log.Warn("a message that cannot be read is not in the dead letters yet; it will come again", "message", l.message.ID, "error", err)
		return
	}
	e.t.log.Error("rejected; moved to the dead letters", "message", l.message.ID, "reason", l.misfit)
}
