// Package servicebus receives from Azure Service Bus: queues, and subscriptions
// of topics, with and without sessions, by peek-lock.
//
// Where attempts are counted: in the message's property drover-failures, which is
// set when a message is abandoned, and in a scheduled copy. The service's own
// delivery count is higher: it counts releases, lost locks and crashes too, and
// its limit still holds.
//
// An entity is reached over links (entity.go, access.go), looked at first
// (inspect.go), and received from (fetch.go), or its sessions are (session.go).
// What came is held for Receive (this file); loans are kept alive (care.go) and
// ended (loan.go, copy.go).
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
)

// Config is a trigger's. Queue, or Topic and Subscriptions, are set.
type Config struct {
	Access        *Access
	Queue         string
	Topic         string
	Subscriptions []string

	// Sessions handles the messages of each session one at a time, in order.
	Sessions bool
	// MaxSessions is how many are held at a time, of each entity; 1 at least.
	MaxSessions int
	// SessionIdle is how long one without messages is held, while there is room
	// for others; SessionTurn, how long one with messages, while others may wait.
	SessionIdle, SessionTurn time.Duration

	// MaxLockRenewal is how long after its receipt a message's lock is renewed;
	// 0 is for as long as it is worked on.
	MaxLockRenewal time.Duration
	// MaxIdle is after how long without a message a receiver is opened anew; 0 is never.
	MaxIdle time.Duration
	// Prefetch is how many messages are held beyond those that a Receive asks
	// for, or PrefetchAuto. Sessions have none.
	Prefetch int
	// Memory bounds the bytes that are held; nil is no bound.
	Memory *triggers.Account
	// Scheduled retries by a copy for later in place of holding the message. For
	// queues without sessions and without duplicate detection.
	Scheduled bool
	// Create makes what is not there.
	Create bool
	// MaxAttempts is what the service's limit to deliveries must be above, where
	// that can be read; 0 is not compared.
	MaxAttempts int
	Log         *slog.Logger
}

// PrefetchAuto holds what is settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// path is the entity's, for people.
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
	// maxCredit is the most that one receiver asks for; the SDK takes 5,000.
	maxCredit  = 2000
	closeLimit = 10 * time.Second
	// openLimit bounds the first look at the entities.
	openLimit = 30 * time.Second
	// unwantedAfter is how long the receivers go on when a Receive was called
	// back and no other came.
	unwantedAfter = time.Second
)

// Open returns a trigger, when its entities were found to be there and to let
// themselves be read.
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
	t := &trigger{cfg: cfg, log: cfg.Log.With("entity", cfg.path()), loans: make(map[*loan]struct{}), added: make(chan struct{}, 1), came: make(chan struct{}, 1)}
	t.room.L = &t.mu
	cfg.Memory.Tell(func() { signal(t.came) })
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

// start begins to receive.
func (t *trigger) start() {
	context.AfterFunc(t.ctx, t.roomChanged)
	t.running.Go(t.care)
	for _, e := range t.entities {
		if t.cfg.Sessions {
			for range max(t.cfg.MaxSessions, 1) {
				t.running.Go(e.holdSessions)
			}
			continue
		}
		arrived := make(chan arrival, 4)
		t.running.Go(func() { e.fetch(arrived) })
		t.running.Go(func() {
			for a := range arrived {
				e.lend(a)
			}
		})
	}
}

type trigger struct {
	cfg      Config
	log      *slog.Logger
	entities []*entity

	ctx     context.Context // ends with the trigger
	stop    context.CancelFunc
	running sync.WaitGroup
	added   chan struct{} // something for care
	came    chan struct{} // something for Receive
	coming  atomic.Int64  // messages on their way to held

	mu       sync.Mutex
	room     sync.Cond // there may be room for more
	loans    map[*loan]struct{}
	held     []*loan // received, and not handed out
	failed   error   // for the next Receive
	closed   bool
	draining bool // nothing more is asked for
	waiting  int  // what the Receive that waits asks for
	unwanted *time.Timer

	rate     triggers.Rate
	troubles triggers.Troubles

	nextCare time.Time // when care looks next
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
	for {
		err := t.failed
		if t.closed {
			err = errClosed
		} else if err == nil {
			err = ctx.Err()
		}
		if len(t.held) > 0 && !t.closed || err != nil {
			out := t.take(maximum)
			if len(out) > 0 {
				err = nil // it will come again
			} else if ctx.Err() != nil && !t.closed {
				t.unwanted = time.AfterFunc(unwantedAfter, t.pause)
			}
			t.waiting, t.failed = 0, nil
			t.room.Broadcast()
			return out, err
		}
		t.waiting = min(maximum, maxCredit)
		t.room.Broadcast()
		t.mu.Unlock()
		select {
		case <-t.came:
		case <-ctx.Done():
		}
		t.mu.Lock()
	}
}

// Drain implements triggers.Drainer.
func (t *trigger) Drain(_ context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining, t.waiting = true, 0
	return t.take(maximum), nil
}

// take hands out what is held; t.mu is held.
func (t *trigger) take(maximum int) []*triggers.Delivery {
	n := min(len(t.held), maximum)
	if n == 0 || t.closed {
		return nil
	}
	out := make([]*triggers.Delivery, n)
	for i, l := range t.held[:n] {
		out[i] = &l.Delivery
	}
	clear(t.held[:n])
	t.held = t.held[n:]
	t.weigh()
	return out
}

// weigh has the account count what is held; t.mu is held.
func (t *trigger) weigh() {
	if t.cfg.Memory == nil {
		return
	}
	bytes, largest := 0, 0
	for _, l := range t.held {
		bytes, largest = bytes+len(l.message.Body), max(largest, len(l.message.Body))
	}
	t.cfg.Memory.Hold(int64(bytes), largest)
}

// pause stops the receivers until there is a Receive: what still comes is for others.
func (t *trigger) pause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entities {
		if t.unwanted != nil && e.pause != nil {
			e.pause()
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *trigger) roomChanged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room.Broadcast()
}

// hand gives messages to Receive; t.mu is held.
func (t *trigger) hand(ls ...*loan) {
	t.held = append(t.held, ls...)
	t.weigh()
	signal(t.came)
}

// fail has the next Receive fail, where no entity works; t.mu is not held.
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
	t.failed = err
	signal(t.came)
}

// works forgets the failures of an entity.
func (t *trigger) works(e *entity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.failing = nil
}

// prefetch is how many messages are held ready beyond those that are asked for;
// t.mu is held.
func (t *trigger) prefetch() int {
	if t.draining {
		return 0
	}
	if t.cfg.Prefetch != PrefetchAuto {
		return min(t.cfg.Prefetch, maxCredit)
	}
	return min(t.rate.Ready(), maxCredit)
}

// forget ends the care for a loan.
func (t *trigger) forget(l *loan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.loans, l)
	t.rate.Settled()
}

// Backlog implements triggers.Trigger: the sum of the entities'.
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

// noteDead keeps as trouble that a message that cannot be read is not in the dead
// letters, until one is.
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
	for l := range t.loans {
		if !l.retryAt.IsZero() {
			n++
		}
	}
	for _, e := range t.entities {
		n += int64(e.retrying)
	}
	return n
}

// Close implements triggers.Trigger. What waits for its next attempt gets it
// early, and the failure is kept.
func (t *trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	if t.unwanted != nil {
		t.unwanted.Stop()
	}
	t.mu.Unlock()
	t.stop()
	signal(t.came)
	t.running.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	t.mu.Lock()
	unseen := t.held
	t.held = nil
	var waiting []*loan
	for l := range t.loans {
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
