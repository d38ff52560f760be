// Package servicebus receives from Azure Service Bus: queues, and subscriptions
// of topics, with and without sessions, by peek-lock.
//
// Attempts are counted in the message's property drover-failures, which is set when a message
// is abandoned, and in a scheduled copy. The service's own delivery count is higher: it also
// counts releases, lost locks and crashes, and its limit still applies.
//
// An entity is reached over links (entity.go, access.go), checked first (inspect.go), and
// received from (receive.go), or through its sessions (session.go). Messages are prefetched
// for Receive (this file); their locks are renewed (keeper.go), and they are settled
// (message.go, copy.go).
package servicebus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// Access describes how to connect to a namespace.
type Access = namespace.Access

// Config is the configuration of a trigger. Either Queue, or Topic and Subscriptions, is set.
type Config struct {
	Access        *Access
	Queue         string
	Topic         string
	Subscriptions []string

	// Sessions handles the messages of each session one at a time, in order.
	Sessions bool
	// MaxSessions bounds the sessions locked at a time, per entity; at least 1.
	MaxSessions int
	// SessionIdle is how long a session without messages stays locked while fewer than
	// MaxSessions are locked. SessionTurn is how long a session with messages stays locked while
	// other sessions may wait.
	SessionIdle, SessionTurn time.Duration

	// MaxLockRenewal is how long after its receipt a message's lock is renewed;
	// 0 is until it is settled.
	MaxLockRenewal time.Duration
	// MaxIdle is the time without a message after which a receiver is reopened; 0 is never.
	MaxIdle time.Duration
	// Prefetch is how many messages are locked beyond those that a Receive requests, or
	// PrefetchAuto. Sessions do not prefetch.
	Prefetch int
	// Memory bounds the prefetched bytes; nil is no bound.
	Memory *triggers.Account
	// Scheduled retries by a scheduled copy instead of holding the message. It is for
	// queues without sessions and without duplicate detection.
	Scheduled bool
	// Create creates missing entities.
	Create bool
	// MaxAttempts must be below the service's limit of deliveries, if that can be read; 0
	// disables the check.
	MaxAttempts int
	Log         *slog.Logger
}

// PrefetchAuto prefetches as many messages as are settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// path returns the entity's path, for logs and errors.
func (c Config) path() string {
	if c.Queue != "" {
		return c.Queue
	}
	if len(c.Subscriptions) == 1 {
		return c.Topic + "/Subscriptions/" + c.Subscriptions[0]
	}
	return fmt.Sprintf("%s/Subscriptions/%v", c.Topic, c.Subscriptions)
}

const (
	// maxCredit bounds the requested messages of one receiver; the SDK allows 5,000.
	maxCredit  = 2000
	closeLimit = 10 * time.Second
	// openLimit bounds the check of the entities at the start.
	openLimit = 30 * time.Second
	// unwantedAfter is how long the receivers continue after a Receive was cancelled, if no
	// other is called.
	unwantedAfter = time.Second
)

// Open returns a trigger, after checking that its entities exist and can be read.
func Open(ctx context.Context, cfg Config) (triggers.Trigger, error) {
	t, err := open(cfg)
	if err != nil {
		return nil, err
	}
	first, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	for _, e := range t.entities {
		if err := e.check(first); err != nil {
			return nil, errors.Join(err, t.Close(ctx))
		}
	}
	t.start()
	return t, nil
}

func open(cfg Config) (*trigger, error) {
	t := &trigger{cfg: cfg, log: cfg.Log.With("entity", cfg.path())}
	t.room.L = &t.mu
	t.keeper, t.buffer = lease.NewKeeper[*leasedMessage](&t.mu), lease.NewBuffer[*leasedMessage](&t.mu)
	t.keeper.Due, t.keeper.Handle, t.keeper.Lost = t.nextDue, t.handleDue, t.leaseLost
	t.buffer.Account, t.buffer.Request, t.buffer.Closed = cfg.Memory, t.room.Broadcast, errClosed
	cfg.Memory.OnFreed(t.buffer.Wake)
	t.ctx, t.stop = context.WithCancel(context.Background())
	names := cfg.Subscriptions
	if cfg.Queue != "" {
		names = []string{""}
	}
	for _, name := range names {
		e := &entity{t: t, queue: cfg.Queue, topic: cfg.Topic, subscription: name, ask: firstAsk, fast: oftenFast}
		l, err := e.dial()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("receiving from %s: %w", e.path(), err), t.Close(context.Background()))
		}
		e.link.Store(l)
		t.entities = append(t.entities, e)
	}
	return t, nil
}

// start starts receiving.
func (t *trigger) start() {
	context.AfterFunc(t.ctx, t.roomChanged)
	t.running.Go(func() { t.keeper.Run(t.ctx) })
	for _, e := range t.entities {
		if t.cfg.Sessions {
			for range max(t.cfg.MaxSessions, 1) {
				t.running.Go(e.holdSessions)
			}
			continue
		}
		arrived := make(chan arrival, 4)
		t.running.Go(func() { e.receiveLoop(arrived) })
		t.running.Go(func() {
			for a := range arrived {
				e.lease(a)
			}
		})
	}
}

type trigger struct {
	cfg      Config
	log      *slog.Logger
	entities []*entity

	ctx       context.Context // ends with the trigger
	stop      context.CancelFunc
	running   sync.WaitGroup
	inTransit atomic.Int64 // messages received and not yet prefetched

	mu       sync.Mutex
	keeper   *lease.Keeper[*leasedMessage]
	buffer   *lease.Buffer[*leasedMessage] // prefetched
	room     sync.Cond                     // there may be room for more messages
	draining bool                          // no more messages are requested
	unwanted *time.Timer

	rate     triggers.Rate
	troubles triggers.Troubles
}

var errClosed = errors.New("the Service Bus trigger is closed")

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unwanted != nil {
		t.unwanted.Stop()
		t.unwanted = nil
	}
	out, err := t.buffer.Receive(ctx, maximum)
	if len(out) == 0 && ctx.Err() != nil && !t.buffer.IsClosed() {
		t.unwanted = time.AfterFunc(unwantedAfter, t.pauseReceivers)
	}
	t.room.Broadcast()
	return out, err
}

// Drain implements triggers.Drainer.
func (t *trigger) Drain(_ context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	return t.buffer.Drain(maximum), nil
}

// waiting returns the number of messages that a blocked Receive requests; t.mu is locked.
func (t *trigger) waiting() int { return min(t.buffer.Waiting(), maxCredit) }

// pauseReceivers stops the receivers until the next Receive, so that other instances get
// further messages.
func (t *trigger) pauseReceivers() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entities {
		if t.unwanted != nil && e.pause != nil {
			e.pause()
		}
	}
}

func (t *trigger) roomChanged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room.Broadcast()
}

// fail makes the next Receive return err if no entity works; t.mu is not locked.
func (t *trigger) fail(e *entity, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := e.failing
	e.failing = err
	for _, other := range t.entities {
		if other.failing == nil {
			if before == nil || before.Error() != err.Error() {
				t.log.Warn("cannot receive from one of several subscriptions; will try until it works", "subscription", e.subscription, "error", err)
			}
			return
		}
	}
	t.buffer.Fail(err)
}

// works records that an entity works again.
func (t *trigger) works(e *entity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.failing = nil
}

// prefetchTarget returns the number of messages to prefetch; t.mu is locked.
func (t *trigger) prefetchTarget() int {
	if t.draining {
		return 0
	}
	if t.cfg.Prefetch != PrefetchAuto {
		return min(t.cfg.Prefetch, maxCredit)
	}
	return min(t.rate.Ready(), maxCredit)
}

// untrack ends the renewal of a lease.
func (t *trigger) untrack(l *leasedMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keeper.Untrack(&l.Item)
	t.rate.Settled()
}

// Backlog implements triggers.Trigger. It returns the sum over the entities.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	var all triggers.Backlog
	for i, e := range t.entities {
		b, err := e.backlog(ctx)
		if err != nil {
			return triggers.Backlog{}, err
		}
		all.Ready += b.Ready
		all.AtLeast = all.AtLeast || b.AtLeast
		if all.Oldest.IsZero() || !b.Oldest.IsZero() && b.Oldest.Before(all.Oldest) {
			all.Oldest = b.Oldest
		}
		switch {
		case b.More == nil:
			all.More = nil
		case i == 0:
			all.More = b.More
		case all.More != nil:
			all.More.Dead += b.More.Dead
			all.More.Scheduled += b.More.Scheduled
		}
	}
	return all, nil
}

// Troubles implements triggers.Troubled.
func (t *trigger) Troubles() []triggers.Trouble { return t.troubles.All() }

// noteDead reports a trouble if unreadable messages cannot be dead-lettered.
func (t *trigger) noteDead(err error) {
	if err == nil {
		t.troubles.Clear(triggers.TroubleDeadLetters)
		return
	}
	t.troubles.Set(triggers.TroubleDeadLetters, fmt.Sprintf("messages that cannot be read cannot be moved to the dead letters: %v", err))
}

// Holding implements triggers.Holder.
func (t *trigger) Holding() (n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.keeper.All() {
		if !l.retryAt.IsZero() {
			n++
		}
	}
	for _, e := range t.entities {
		n += int64(e.retrying)
	}
	return n
}

// Close implements triggers.Trigger. A message that waits for its next attempt is abandoned
// early, with its failure recorded.
func (t *trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	if !t.buffer.Close() {
		t.mu.Unlock()
		return nil
	}
	if t.unwanted != nil {
		t.unwanted.Stop()
	}
	t.mu.Unlock()
	t.stop()
	t.running.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	t.mu.Lock()
	unseen := t.buffer.Rest()
	var waiting []*leasedMessage
	for l := range t.keeper.All() {
		if !l.retryAt.IsZero() {
			waiting = append(waiting, l)
		}
	}
	t.mu.Unlock()
	errs := make(chan error, len(unseen)+len(waiting)+len(t.entities))
	var all sync.WaitGroup
	for _, l := range unseen {
		all.Go(func() { errs <- l.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Release}) })
	}
	for _, l := range waiting {
		all.Go(func() {
			m := l.message
			m.Attempt = l.failures
			errs <- l.end(ctx, &m, triggers.Verdict{Kind: triggers.Retry})
		})
	}
	all.Wait()
	for _, e := range t.entities {
		errs <- e.close(ctx)
	}
	close(errs)
	var out []error
	for err := range errs {
		out = append(out, err)
	}
	if err := errors.Join(out...); err != nil {
		return fmt.Errorf("closing the receiver of %s: %w", t.cfg.path(), err)
	}
	return nil
}
