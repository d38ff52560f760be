// Package servicebus receives from Azure Service Bus: queues, and subscriptions
// of topics, by peek-lock.
//
// Where attempts are counted: in the message's property drover-failures, which is
// set when a message is abandoned. The service's own delivery count is higher: it
// counts releases, lost locks and crashes too, and its limit still holds.
package servicebus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/triggers"
)

// Config is a trigger's. Queue, or Topic and Subscription, are set.
type Config struct {
	Queue               string
	Topic, Subscription string
	// MaxLockRenewal is how long after its receipt a message's lock is renewed;
	// 0 is for as long as it is worked on.
	MaxLockRenewal time.Duration
	// Prefetch is how many messages are held beyond those that a Receive asks
	// for, or PrefetchAuto.
	Prefetch int
	Log      *slog.Logger
}

// PrefetchAuto holds what is settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// path is the entity's, for people.
func (c Config) path() string {
	if c.Queue != "" {
		return c.Queue
	}
	return c.Topic + "/Subscriptions/" + c.Subscription
}

const (
	// settleLimit bounds a try by the lock's token: the SDK's own would take up
	// to 50 s where the connection was lost.
	settleLimit = 10 * time.Second
	// linkLimit bounds the first try, over the link that a message came by.
	linkLimit = 3 * time.Second
	// maxCredit is the most that one Receive asks for; the SDK takes 5,000.
	maxCredit  = 2000
	closeLimit = 10 * time.Second
)

// failuresProperty carries how often a message has failed.
const failuresProperty = "drover-failures"

// openLimit bounds the first look at the entity.
const openLimit = 30 * time.Second

// Open returns a trigger on an entity, when that was found to be there and to let
// itself be read. It has a client of its own: an error of one entity ends a
// client's whole connection. The connection string is in no error.
func Open(ctx context.Context, connectionString string, cfg Config) (triggers.Trigger, error) {
	client, err := azservicebus.NewClientFromConnectionString(connectionString, nil)
	if err != nil {
		return nil, fmt.Errorf("the connection string for %s: %w", cfg.path(), err)
	}
	t, err := open(client, cfg)
	if err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	first, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	if _, err := t.Backlog(first); err != nil {
		return nil, errors.Join(err, t.Close(ctx))
	}
	return t, nil
}

func open(client *azservicebus.Client, cfg Config) (*trigger, error) {
	t := &trigger{client: client, cfg: cfg, log: cfg.Log.With("entity", cfg.path()), loans: make(map[*loan]struct{}), added: make(chan struct{}, 1),
		came: make(chan struct{}, 1), wanted: make(chan struct{}, 1), marked: time.Now()}
	var err error
	if cfg.Queue != "" {
		t.receiver, err = client.NewReceiverForQueue(cfg.Queue, nil)
	} else {
		t.receiver, err = client.NewReceiverForSubscription(cfg.Topic, cfg.Subscription, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("receiving from %s: %w", cfg.path(), err)
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.newLink()
	t.running.Go(t.care)
	t.running.Go(t.fetch)
	return t, nil
}

type trigger struct {
	client   *azservicebus.Client
	receiver *azservicebus.Receiver
	cfg      Config
	log      *slog.Logger

	ctx     context.Context // ends with the trigger
	stop    context.CancelFunc
	running sync.WaitGroup
	added   chan struct{} // something for care
	came    chan struct{} // something for Receive
	wanted  chan struct{} // something for fetch

	// link is the one that messages come by, as far as is known: a message is
	// settled over its own only while that is likely to be there.
	link atomic.Pointer[link]

	mu     sync.Mutex
	loans  map[*loan]struct{}
	held   []*triggers.Delivery // received, and not handed out
	failed error                // for the next Receive
	closed bool

	waiting     int // what the Receive that waits asks for
	cancelFetch context.CancelFunc

	ready   int // what is held ready, by the rate
	settled int // since marked
	marked  time.Time
	// markedFast is when the last of so many was settled.
	markedFast time.Time

	nextCare time.Time // when care looks next
}

// link is a link to the entity; its context ends when it is known to be gone.
type link struct {
	ctx  context.Context
	gone context.CancelFunc
}

// newLink is called when the link there was is gone, or there was none.
func (t *trigger) newLink() {
	l := new(link)
	l.ctx, l.gone = context.WithCancel(context.Background())
	if old := t.link.Swap(l); old != nil {
		old.gone()
	}
}

var errClosed = errors.New("the Service Bus trigger is closed")

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	t.waiting = min(maximum, maxCredit)
	t.mu.Unlock()
	signal(t.wanted)
	for {
		t.mu.Lock()
		out := t.held
		if len(out) > maximum {
			out = out[:maximum:maximum]
		}
		t.held = t.held[len(out):]
		err := t.failed
		t.failed = nil
		if t.closed {
			err = errClosed
		} else if err == nil {
			err = ctx.Err()
		}
		if len(out) > 0 || err != nil {
			t.waiting = 0
			if len(out) > 0 {
				err = nil // it will come again
			} else if t.cancelFetch != nil {
				t.cancelFetch() // nobody wants what it asks for
			}
			t.mu.Unlock()
			signal(t.wanted)
			return out, err
		}
		t.mu.Unlock()
		select {
		case <-t.came:
		case <-ctx.Done():
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fetch is the goroutine that receives, and does nothing else: what the SDK has
// asked for and nobody takes it gives back, unseen. It asks for what a Receive
// waits for, and for the prefetch.
func (t *trigger) fetch() {
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
	for t.ctx.Err() == nil {
		t.mu.Lock()
		room := t.waiting + t.prefetch() - len(t.held)
		ctx, cancel := context.WithCancel(t.ctx)
		t.cancelFetch = cancel
		t.mu.Unlock()
		if room <= 0 {
			cancel()
			select {
			case <-t.wanted:
			case <-t.ctx.Done():
			}
			continue
		}
		got, err := t.receiver.ReceiveMessages(ctx, min(room, maxCredit), nil)
		cancelled := ctx.Err() != nil
		cancel()
		if len(got) > 0 {
			t.lend(got)
			pause.Reset()
			continue
		}
		if cancelled {
			continue
		}
		t.newLink()
		if err != nil {
			t.mu.Lock()
			t.failed = fmt.Errorf("receiving from %s: %w", t.cfg.path(), explain(err))
			t.mu.Unlock()
			signal(t.came)
		}
		// The SDK comes back with nothing at once, over and over, while a link
		// cannot be had.
		select {
		case <-time.After(pause.NextBackOff()):
		case <-t.ctx.Done():
		}
	}
}

const (
	// ahead is the work that is held ready: what is settled in this time.
	ahead = 100 * time.Millisecond
	// rateOver is how long the rate of settlements is measured over.
	rateOver = 500 * time.Millisecond
)

// prefetch is how many messages are held ready beyond those that are asked for,
// by the rate of settlements; t.mu is held. A slow function has none: its
// messages would better be another instance's.
func (t *trigger) prefetch() int {
	if t.cfg.Prefetch != PrefetchAuto {
		return min(t.cfg.Prefetch, maxCredit)
	}
	if now := time.Now(); now.Sub(t.marked) > rateOver {
		t.ready = int(int64(t.settled) * int64(ahead) / int64(now.Sub(t.marked)))
		t.marked, t.settled = now, 0
		t.markedFast = now
	}
	return min(t.ready, maxCredit)
}

// faster raises the prefetch as soon as messages are settled faster; t.mu is held.
func (t *trigger) faster() {
	const over = 32 // settlements
	if t.settled++; t.settled%over != 0 {
		return
	}
	now := time.Now()
	t.ready = max(t.ready, int(over*ahead/max(now.Sub(t.markedFast), time.Microsecond)))
	t.markedFast = now
}

// explain says what to do about an error.
func explain(err error) error {
	var e *azservicebus.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case azservicebus.CodeUnauthorizedAccess:
		return fmt.Errorf("%w; the key or identity needs the right Listen (Azure Service Bus Data Receiver)", err)
	case azservicebus.CodeNotFound:
		return fmt.Errorf("%w; is the name right, and is it made?", err)
	}
	return err
}

func (t *trigger) lend(got []*azservicebus.ReceivedMessage) {
	now, by := time.Now(), t.link.Load()
	t.mu.Lock()
	sooner := false
	for _, m := range got {
		l := newLoan(t, m, now, by)
		t.loans[l] = struct{}{}
		t.held = append(t.held, &l.Delivery)
		sooner = sooner || l.renewAt.Before(t.nextCare)
	}
	t.mu.Unlock()
	if sooner {
		signal(t.added)
	}
	signal(t.came)
}

// Backlog implements triggers.Trigger, by a look at what is next: from 250 on it
// tells that there are so many at least.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	from := int64(0)
	seen, err := t.receiver.PeekMessages(ctx, 250, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
	if err != nil {
		return triggers.Backlog{}, fmt.Errorf("looking at the messages of %s: %w", t.cfg.path(), explain(err))
	}
	t.mu.Lock()
	held := make(map[int64]bool, len(t.loans))
	for l := range t.loans {
		if n := l.received.SequenceNumber; n != nil {
			held[*n] = true
		}
	}
	t.mu.Unlock()
	var b triggers.Backlog
	for _, m := range seen {
		if m.State != azservicebus.MessageStateActive || m.SequenceNumber != nil && held[*m.SequenceNumber] {
			continue
		}
		b.Ready++
		if b.Oldest.IsZero() && m.EnqueuedTime != nil {
			b.Oldest = *m.EnqueuedTime
		}
	}
	return b, nil
}

// Close implements triggers.Trigger.
func (t *trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	t.stop()
	signal(t.came)
	t.running.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	t.mu.Lock()
	unseen := t.held
	t.held = nil
	var held []*loan // that wait for their next attempt: they get it early, and the failure is kept
	for l := range t.loans {
		if !l.retryAt.IsZero() {
			held = append(held, l)
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, d := range unseen {
		errs = append(errs, d.Settle(ctx, triggers.Verdict{Kind: triggers.Release}))
	}
	for _, l := range held {
		m := l.message
		m.Attempt = l.failures
		errs = append(errs, l.end(ctx, &m, triggers.Verdict{Kind: triggers.Retry}))
	}
	defer t.link.Load().gone()
	if err := errors.Join(append(errs, t.receiver.Close(ctx), t.client.Close(ctx))...); err != nil {
		return fmt.Errorf("closing the receiver of %s: %w", t.cfg.path(), err)
	}
	return nil
}
