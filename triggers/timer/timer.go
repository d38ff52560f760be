// Package timer is a trigger that is due by a schedule, such as every five minutes.
//
// An instance waits until the timer is due, leases it from its Store, runs it, and stores its
// state. So of several instances one runs each occurrence:
//
//   - The timer never runs twice at once. Occurrences that come during a run, or before the next
//     attempt of one that failed, are skipped.
//   - An instance that is killed during a run leaves the state as it was. When its lease
//     expires, another instance runs that occurrence once more.
//   - The next occurrence is stored before it is due. If nobody runs it in time, it is made up for
//     as soon as an instance is there, once and with IsPastDue, however many were missed. Without
//     a monitor it is skipped.
//
// Open returns a trigger; see package triggers for who calls what. A message of a timer has Info as
// its body, and as its ID the time at which it was due.
package timer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/timer/schedule"
)

// Config is the configuration of a timer.
type Config struct {
	Name     string // of the function, in messages
	Schedule *schedule.Schedule
	// UseMonitor makes up for an occurrence that was missed. It has no effect if occurrences may
	// be less than a minute apart.
	UseMonitor bool
	// StartedAt is the start of the app at which the timer runs once, whatever its schedule. The
	// starts of instances within a minute are one. Zero disables it.
	StartedAt time.Time
	Store     Store
	Log       *slog.Logger
	// Clock returns the time; nil is time.Now.
	Clock func() time.Time
}

const (
	// requestLimit bounds a request to the store. It is not cut short when Receive is
	// cancelled: the lease would be held until it expires.
	requestLimit = 5 * time.Second
	// clockCheck is how often the clock is read while a timer waits, so that a step of the clock
	// is noticed.
	clockCheck = 30 * time.Second
	// minPoll is the time until the second attempt to acquire a lease that another instance has. It
	// doubles up to the term of the lease.
	minPoll = time.Second
)

var errClosed = errors.New("the timer is closed")

// Open returns a trigger. It sends no request.
func Open(cfg Config) *Trigger {
	t := &Trigger{
		cfg: cfg, rules: rules{cfg.Schedule, cfg.UseMonitor && !cfg.Schedule.IsFrequent(), cfg.StartedAt},
		first: true, changed: make(chan struct{}, 1),
	}
	if t.cfg.Clock == nil {
		t.cfg.Clock = time.Now
	}
	t.keeper = lease.NewKeeper[*run](&t.mu)
	t.keeper.Handle, t.keeper.Lost = t.renew, t.leaseLost
	t.ctx, t.stop = context.WithCancel(context.Background())
	if cfg.Store.LeaseTerm() > 0 {
		t.running.Go(func() { t.keeper.Run(t.ctx) })
	}
	return t
}

// Trigger implements triggers.Trigger.
type Trigger struct {
	cfg     Config
	rules   rules
	ctx     context.Context // ends with the trigger
	stop    context.CancelFunc
	running sync.WaitGroup
	changed chan struct{} // wakes Receive

	mu     sync.Mutex
	keeper *lease.Keeper[*run]
	first  bool      // no state was seen yet
	seen   time.Time // the clock when Receive last read it
	wake   time.Time // when to look at the state again
	polls  int       // for a lease of another instance, so far
	next   time.Time // when the timer is due, as last seen; zero: unknown
	out    *run      // the delivery that is not settled
	late   *run      // likewise, but it came after the end of its Receive
	closed bool
}

// run is one delivery.
type run struct {
	lease.Item[*run]
	message triggers.Message
	t       *Trigger
	plan    plan
	start   time.Time

	asking sync.Mutex // requests about a lease are made one at a time
	lease  Lease
	ended  bool // the lease
}

// Receive implements triggers.Trigger. It returns at most one delivery, and none before that one is
// settled.
func (t *Trigger) Receive(ctx context.Context, _ int) ([]*triggers.Delivery, error) {
	for {
		now := t.now()
		t.mu.Lock()
		if now.Before(t.seen.Add(-maxSkew)) {
			t.wake = now // the clock went back
		}
		t.seen = now
		closed, out, late, wake := t.closed, t.out, t.late, t.wake
		if late != nil && ctx.Err() == nil {
			t.late = nil
		}
		t.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case late != nil:
			return []*triggers.Delivery{&late.Delivery}, nil
		case out != nil:
			t.waitFor(ctx, clockCheck)
			continue
		}
		if wait := wake.Sub(now); wait > 0 {
			t.waitFor(ctx, min(wait, clockCheck))
			continue
		}
		r, err := t.acquire(ctx, now)
		if err != nil {
			return nil, fmt.Errorf("timer %s: %w", t.cfg.Name, err)
		}
		if r != nil && ctx.Err() == nil {
			return []*triggers.Delivery{&r.Delivery}, nil
		}
		t.mu.Lock()
		t.late = r
		t.mu.Unlock()
	}
}

// now reads the clock. Steps of the clock count, so the result has no monotonic reading.
func (t *Trigger) now() time.Time { return t.cfg.Clock().Round(0) }

// waitFor waits until something has changed, for d at most.
func (t *Trigger) waitFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.changed:
	case <-ctx.Done():
	case <-t.ctx.Done():
	}
}

// acquire leases the timer if it is due, and returns the run. Otherwise it sets when to look again.
func (t *Trigger) acquire(ctx context.Context, now time.Time) (*run, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
	defer cancel()
	asked := time.Now()
	state, held, err := t.cfg.Store.AcquireLease(ctx, func(s State) bool { return t.rules.planAt(s, now, t.first).needsLease() })
	switch {
	case errors.Is(err, ErrLeased):
		t.pollLater(now)
		return nil, nil
	case err != nil:
		return nil, err
	}
	p := t.rules.planAt(state, now, t.first)
	if held != nil && !p.due {
		if err := held.EndLease(ctx, p.state); err != nil && !errors.Is(err, lease.ErrLost) {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.first, t.polls = false, 0
	t.wake, t.next = p.state.NextDue(), p.state.NextDue()
	if !p.due {
		return nil, nil
	}
	r := t.newRun(p, held, now)
	if term := t.cfg.Store.LeaseTerm(); term > 0 {
		r.Begin(asked, term, 0)
		t.keeper.Track(&r.Item)
	}
	t.out = r
	return r, nil
}

// newRun returns the run of a plan that is due.
func (t *Trigger) newRun(p plan, held Lease, now time.Time) *run {
	r := &run{t: t, plan: p, lease: held, start: now}
	r.message = triggers.Message{
		ID: p.at.UTC().Format(time.RFC3339Nano), Body: t.rules.body(p), Attempt: p.attempt, Enqueued: p.at, Subject: t.cfg.Name,
	}
	r.Init(r, &r.message, r)
	return r
}

// pollLater sets when to look again at a timer that another instance has leased. Each occurrence
// is tried at its time, and the lease between them, in case that instance is killed.
func (t *Trigger) pollLater(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := min(minPoll<<min(t.polls, 16), max(t.cfg.Store.LeaseTerm(), minPoll))
	t.polls++
	t.wake, t.next = now.Add(wait), time.Time{}
	if next := t.rules.schedule.Next(now); t.rules.schedule.Span() == 0 && next.Before(t.wake) {
		t.wake = next
	}
}

// renew is called when a lease must be renewed. A lease that could not be renewed in time is lost:
// another instance may run the timer.
func (t *Trigger) renew(r *run) {
	t.keeper.Renew(t.ctx, &r.Item, func(ctx context.Context) error {
		r.asking.Lock()
		defer r.asking.Unlock()
		if r.ended {
			return errors.New("the run has ended")
		}
		return r.lease.RenewLease(ctx)
	})
	t.mu.Lock()
	expired := !r.Lost() && time.Now().After(r.Expires())
	t.mu.Unlock()
	if expired {
		t.keeper.Revoke(&r.Item)
	}
}

func (t *Trigger) leaseLost(r *run) {
	t.cfg.Log.Warn("lease expired before the run ended; the timer may run again", "message", r.message.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keeper.Untrack(&r.Item)
}

// Settle implements triggers.Lease.
func (r *run) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	r.asking.Lock()
	defer r.asking.Unlock()
	t, now := r.t, r.t.now()
	var s State
	switch v.Kind {
	case triggers.Done, triggers.Reject:
		s = t.rules.afterRun(r.plan, r.start, now)
	case triggers.Retry:
		s = t.rules.afterFailure(r.plan, m.Attempt, now.Add(v.Delay), now)
	case triggers.Release:
		s = t.rules.afterFailure(r.plan, m.Attempt-1, now, now)
	default:
		return fmt.Errorf("no such verdict: %d", v.Kind)
	}
	err := r.lease.EndLease(ctx, s)
	switch {
	case errors.Is(err, lease.ErrLost):
		t.cfg.Log.Warn("lease expired before the run was settled; the timer may run again", "message", m.ID)
		s.Next, s.Failed = now, nil // the state is unknown
	case err != nil:
		return fmt.Errorf("storing the state of timer %s: %w", t.cfg.Name, err)
	}
	r.ended = true
	t.mu.Lock()
	t.keeper.Untrack(&r.Item)
	t.wake, t.next = s.NextDue(), s.NextDue()
	if t.out == r {
		t.out = nil
	}
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default:
	}
	return nil
}

// Backlog implements triggers.Trigger: 1 if the timer is due and no instance runs it.
func (t *Trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	s, leased, err := t.cfg.Store.ReadState(ctx)
	if err != nil {
		return triggers.Backlog{}, fmt.Errorf("timer %s: %w", t.cfg.Name, err)
	}
	if leased {
		return triggers.Backlog{}, nil
	}
	p := t.rules.planAt(s, t.now(), false)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next = p.state.NextDue(); p.due {
		return triggers.Backlog{Ready: 1, Oldest: p.at}, nil
	}
	return triggers.Backlog{}, nil
}

// NextDue implements triggers.Scheduled.
func (t *Trigger) NextDue() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.out != nil || t.next.IsZero() {
		return time.Time{}, false
	}
	return t.next.In(t.rules.schedule.Zone()), true
}

// DiscardsRejected implements triggers.Discarder: the timer is due again at its next occurrence.
func (*Trigger) DiscardsRejected() {}

// Notes implements triggers.Noter.
func (t *Trigger) Notes() []string {
	t.mu.Lock()
	polled := t.polls > 0
	t.mu.Unlock()
	if next, known := t.NextDue(); known {
		return []string{fmt.Sprintf("the timer is due at %s, in %v", next.Format("2006-01-02 15:04:05 MST"), next.Sub(t.now()).Round(time.Second))}
	}
	if polled {
		return []string{"another instance runs the timer, or will when it is due"}
	}
	return nil
}

// Close implements triggers.Trigger. It releases a delivery that Receive has not returned.
func (t *Trigger) Close(ctx context.Context) error {
	t.mu.Lock()
	late := t.late
	t.closed, t.late = true, nil
	t.mu.Unlock()
	var err error
	if late != nil {
		err = late.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Release})
	}
	t.stop()
	t.running.Wait()
	return err
}
