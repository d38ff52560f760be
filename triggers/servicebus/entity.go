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
	// accepting counts those that are being waited for, or whose first message is.
	accepting int
	// inSessions counts the messages that they have.
	inSessions int

	// fetch's own.
	ask     int // what it asks for next, at most
	out     int // asked for, and not come
	fast    int // times in a row that it came as fast as it can
	fastest time.Duration
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

	mu       sync.Mutex
	settling context.Context // of the settlements that begin
	until    time.Time       // for which it is used
}

// settle is the context of a settlement over the link: it ends with the link, and
// after linkLimit, or up to twice as long. Many share it, since to make one for
// each message would be a tenth of what drover costs it.
func (l *link) settle() context.Context {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.After(l.until) {
		l.until = now.Add(linkLimit)
		ctx, cancel := context.WithDeadline(l.ctx, l.until.Add(linkLimit))
		context.AfterFunc(ctx, cancel)
		l.settling = ctx
	}
	return l.settling
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
	l := &link{client: old.client, receiver: old.receiver, users: old.users}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if !e.link.CompareAndSwap(old, l) {
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
const firstAsk = 1

// afterFirst is how long is waited for more when one message has come.
const afterFirst = 5 * time.Millisecond

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
		by, began := e.link.Load(), time.Now()
		got, err := by.receiver.ReceiveMessages(ctx, n, &receiveOptions)
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
}

// handOver is how long messages wait to be taken in where more are still to come.
// The SDK has begun to give back what comes, and stops when the next receiving
// begins; to wake another goroutine first would keep it from stopping.
const handOver = 50 * time.Microsecond

var receiveOptions = azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: afterFirst}

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
		if room > 0 {
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
	if e.fastest == 0 || took < e.fastest {
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
const perMessage = 20 * time.Microsecond

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
	if err != nil {
		e.t.log.Warn("a message that cannot be read is not in the dead letters yet; it will come again", "message", l.message.ID, "error", err)
		return
	}
	e.t.log.Error("rejected; moved to the dead letters", "message", l.message.ID, "reason", l.misfit)
}
