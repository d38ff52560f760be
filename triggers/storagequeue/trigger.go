// Package storagequeue receives from Azure Storage queues, by short leases that
// are renewed for as long as a message is worked on.
//
// Where attempts are counted: in a Ledger, a file of this daemon's. The service's
// own DequeueCount is higher: it counts releases, lost leases and crashes, too.
// MaxDequeueCount bounds it.
//
// A queue is reached through an Account (access.go, reach.go, failure.go) and
// asked over and over (poll.go). What came is held for Receive (this file); loans
// are kept alive (care.go) and ended (loan.go, poison.go).
package storagequeue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"
	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/triggers"
)

// Config is a trigger's.
type Config struct {
	Account  *Account
	Queue    string
	Encoding Encoding
	// PoisonQueue is where rejected messages go; it is made where it is missing.
	PoisonQueue  string
	PoisonFormat PoisonFormat
	// Lease is how long the service hides a message that nobody is heard of: whole
	// seconds, 1 s to 7 days.
	Lease time.Duration
	// MaxPollInterval is the longest time between two questions to an empty queue.
	MaxPollInterval time.Duration
	// MaxAttempts is how often a function may fail on a message. MaxDequeueCount is
	// how often a message is handed out, for whatever reason; 0 is without end.
	MaxAttempts     int
	MaxDequeueCount int64
	// Prefetch is how many messages are held beyond those that a Receive asks
	// for, or PrefetchAuto.
	Prefetch int
	// Memory bounds the bytes that are held; nil is no bound.
	Memory *triggers.Account
	// Create makes the queue where it is missing.
	Create bool
	Ledger *Ledger
	Log    *slog.Logger
}

// PrefetchAuto holds what is settled in a tenth of a second, as measured.
const PrefetchAuto = -1

const (
	closeLimit = 10 * time.Second
	// openLimit bounds the first look at the queue.
	openLimit = 30 * time.Second
)

// Open returns a trigger, when its queue was found to be there.
func Open(ctx context.Context, cfg Config) (triggers.Trigger, error) { return open(ctx, cfg) }

func open(ctx context.Context, cfg Config) (*trigger, error) {
	t := &trigger{
		cfg: cfg, log: cfg.Log.With("queue", cfg.Queue), width: firstGets, paused: true, opened: time.Now(), pause: pauses(cfg.MaxPollInterval),
		loans: make(map[*loan]struct{}), done: make(map[string]struct{}), added: make(chan struct{}, 1), came: make(chan struct{}, 1),
	}
	cfg.Memory.Tell(func() { signal(t.came) })
	var err error
	if t.queue, err = cfg.Account.reach(cfg.Queue); err != nil {
		return nil, err
	}
	if t.poison, err = cfg.Account.reach(cfg.PoisonQueue); err != nil {
		return nil, err
	}
	t.key = t.queue.address()
	first, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	if err := t.check(first); err != nil {
		return nil, err
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.asking, t.stopAsking = context.WithCancel(context.Background())
	t.alarm = time.AfterFunc(time.Hour, t.rang)
	t.alarm.Stop()
	t.running.Go(t.care)
	cfg.Account.mu.Lock()
	cfg.Account.triggers[t] = struct{}{}
	cfg.Account.mu.Unlock()
	return t, nil
}

// check looks whether the queue is there, and makes it where it is to be made.
func (t *trigger) check(ctx context.Context) error {
	_, err := t.queue.peek(ctx, 1)
	switch {
	case queueerror.HasCode(err, queueerror.QueueNotFound) && t.cfg.Create:
		return t.queue.make(ctx)
	case forbidden(err):
		t.log.Debug("the queue cannot be looked into; the first message will show whether it can be read", "error", err)
		return nil
	}
	return err
}

type trigger struct {
	cfg           Config
	log           *slog.Logger
	queue, poison *reach
	key           string // in the ledger

	ctx        context.Context // ends with the trigger
	stop       context.CancelFunc
	asking     context.Context // ends the gets: not before they had time to come back
	stopAsking context.CancelFunc
	running    sync.WaitGroup
	added      chan struct{} // something for care
	came       chan struct{} // something for Receive

	toldForbidden sync.Once
	troubles      triggers.Troubles

	mu      sync.Mutex
	loans   map[*loan]struct{}
	held    []*loan             // received, and not handed out
	done    map[string]struct{} // to be deleted when they come again
	failed  error               // for the next Receive
	closed  bool
	waiting int // what the Receive that waits asks for
	rate    triggers.Rate

	paused    bool // nothing is asked for before the next Receive
	gets      int  // on their way
	asked     int  // messages, by those
	width     int  // how many gets there may be
	pause     *backoff.ExponentialBackOff
	nextGet   time.Time
	throttled bool // nextGet is the server's wish
	alarm     *time.Timer
	opened    time.Time
	expected  []int64 // when messages will be visible, in ms, in order

	nextCare time.Time // when care looks next
}

var errClosed = errors.New("the storage queue trigger is closed")

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, maximum int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused = false
	for {
		err := t.failed
		if t.closed {
			err = errClosed
		} else if err == nil {
			err = ctx.Err()
		}
		if len(t.held) > 0 && !t.closed || err != nil {
			out := t.hand(maximum)
			if len(out) > 0 {
				err = nil // it will come again
			} else {
				t.paused = true
			}
			t.waiting, t.failed = 0, nil
			t.ask()
			return out, err
		}
		t.waiting = maximum
		t.ask()
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
	t.paused, t.waiting = true, 0
	return t.hand(maximum), nil
}

// hand hands out what is held; t.mu is held.
func (t *trigger) hand(maximum int) []*triggers.Delivery {
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

// forget ends the care for a loan.
func (t *trigger) forget(l *loan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.loans, l)
	t.rate.Settled()
}

// Backlog implements triggers.Trigger. Up to 32 messages are counted exactly;
// beyond, the service's count is approximate, and has those in it that are hidden:
// ours are taken off, those of other instances and those for later are not.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	seen, err := t.queue.peek(ctx, maxGet)
	if err != nil {
		return triggers.Backlog{}, err
	}
	out := triggers.Backlog{Ready: int64(len(seen))}
	for _, m := range seen {
		if at := deref(m.InsertionTime); out.Oldest.IsZero() || at.Before(out.Oldest) {
			out.Oldest = at
		}
	}
	if len(seen) < maxGet {
		return out, nil
	}
	all, err := t.queue.count(ctx)
	if err != nil {
		out.AtLeast = true
		return out, nil // a signature may let us look, and not count
	}
	t.mu.Lock()
	ours := int64(len(t.loans))
	t.mu.Unlock()
	out.Ready = max(out.Ready, all-ours)
	return out, nil
}

// Troubles implements triggers.Troubled.
func (t *trigger) Troubles() []triggers.Trouble { return t.troubles.All() }

// Close implements triggers.Trigger.
func (t *trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.alarm.Stop()
	t.mu.Unlock()
	t.cfg.Account.mu.Lock()
	delete(t.cfg.Account.triggers, t)
	t.cfg.Account.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	// A get that is cut may have been carried out: its messages would be hidden
	// for a lease.
	unhurried := context.AfterFunc(ctx, t.stopAsking)
	defer unhurried()
	t.stop()
	signal(t.came)
	t.running.Wait()
	t.stopAsking()
	t.mu.Lock()
	unseen := t.held
	t.held = nil
	t.mu.Unlock()
	errs := make(chan error, len(unseen))
	atOnce(unseen, func(l *loan) { errs <- l.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Release}) })
	close(errs)
	var out []error
	for err := range errs {
		out = append(out, err)
	}
	if err := errors.Join(out...); err != nil {
		return fmt.Errorf("closing the receiver of %s: %w", t.cfg.Queue, err)
	}
	return nil
}
