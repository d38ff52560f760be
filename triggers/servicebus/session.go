package servicebus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

const (
	// crowdedIdle is how long a session without messages stays locked while MaxSessions are
	// locked.
	crowdedIdle = 50 * time.Millisecond
	// idleLook is how often an idle session checks whether other sessions need its slot.
	idleLook = 500 * time.Millisecond
)

// errSessionEnded is returned if a session is no longer locked here.
var errSessionEnded = errors.New("the session is no longer held; its messages will be redelivered")

// session is a session that is locked here. Its messages are delivered one at a time, or as many as
// Together, ordered by number. A failed message is retried before later ones.
type session struct {
	t     *shared
	e     *entity
	r     *azservicebus.SessionReceiver
	id    string
	began time.Time
	lock  time.Duration

	settled chan ending     // sent by settle
	ctx     context.Context // ends when the session is no longer locked
	giveUp  context.CancelFunc

	// Used by run only.
	queue   []*leasedMessage // received, in order
	open    []*leasedMessage // in flight, in order
	since   time.Time        // when the first of these was received
	again   []ending         // those delivered with them that failed, or were released since one failed
	shown   bool             // its first message was prefetched
	retryAt time.Time        // when these are abandoned; zero while messages are in flight
	awaited []int64          // the numbers of abandoned messages that will be redelivered

	stateMu sync.Mutex
	state   []byte
	known   bool // state is the state at the service
}

// ending describes how a message ended.
type ending struct {
	l        *leasedMessage
	kind     triggers.Kind // Done, Reject, Retry; Release of one of several; else the session is closed
	delay    time.Duration
	failures int
}

func newSession(e *entity, r *azservicebus.SessionReceiver) *session {
	now := time.Now()
	s := &session{t: e.t, e: e, r: r, id: r.SessionID(), began: now, lock: e.lockOf(r.LockedUntil(), now), settled: make(chan ending)}
	s.ctx, s.giveUp = context.WithCancel(context.Background())
	return s
}

// run keeps the session locked until it is lost or idle, its turn is over, or the trigger ends.
func (s *session) run() {
	t := s.t
	t.mu.Lock()
	s.e.sessions.held++
	t.mu.Unlock()
	ctx, cancel := context.WithCancel(t.ctx)
	came, broken := make(chan *azservicebus.ReceivedMessage), make(chan error, 1)
	var reading sync.WaitGroup
	reading.Go(func() { broken <- s.read(ctx, came) })

	lost := s.serve(came, broken)
	cancel()
	reading.Wait()
	s.dropReceived(lost)
	closing, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if err := s.r.Close(closing); err != nil && lost == nil {
		t.log.Debug("cannot close a session; its lock will expire", "session", s.id, "error", err)
	}
	t.mu.Lock()
	s.e.sessions.held--
	t.mu.Unlock()
}

// read receives one message after the other. It requests one at a time: the SDK would release a
// message that arrives between two receive calls, and the next one would overtake it.
func (s *session) read(ctx context.Context, came chan<- *azservicebus.ReceivedMessage) error {
	for {
		got, err := s.r.ReceiveMessages(ctx, 1, nil)
		if len(got) == 0 {
			if err == nil {
				err = errSessionEnded // the link or the connection was lost
			}
			return err
		}
		select {
		case came <- got[0]:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve serves the session until it ends. The error is nil if it was not lost.
func (s *session) serve(came <-chan *azservicebus.ReceivedMessage, broken <-chan error) error {
	t := s.t
	renew := time.NewTimer(renewAfter(s.lock))
	defer renew.Stop()
	idle, retry := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer idle.Stop()
	defer retry.Stop()
	var idleSince time.Time
	for {
		if len(s.open)+len(s.again) == 0 {
			if s.turnOver() {
				return nil
			}
			if n := min(len(s.queue), max(t.cfg.Together, 1)); len(s.awaited) == 0 && n > 0 {
				s.open, s.queue = slices.Clone(s.queue[:n]), s.queue[n:]
				s.since, idleSince = s.open[0].start, time.Time{}
				t.mu.Lock()
				for _, l := range s.open {
					t.buffer.Add(&l.Item)
				}
				t.mu.Unlock()
				s.show()
			} else if idleSince.IsZero() {
				idleSince = time.Now()
				idle.Reset(crowdedIdle)
			}
		}
		in := came
		if len(s.queue) >= max(t.cfg.Together, 1) && len(s.awaited) == 0 {
			in = nil
		}
		select {
		case m := <-in:
			s.enqueue(m)
		case how := <-s.settled:
			if !s.endMessage(how) {
				return nil
			}
			if !s.retryAt.IsZero() {
				retry.Reset(time.Until(s.retryAt))
			}
		case <-retry.C:
			if s.retryAt.IsZero() {
				continue
			}
			if err := s.abandonAgain(); err != nil {
				return err
			}
		case <-renew.C:
			if len(s.open)+len(s.again) > 0 && t.cfg.MaxLockRenewal > 0 && time.Since(s.since) > t.cfg.MaxLockRenewal {
				renew.Reset(s.lock / 8) // the lock expires unless the message is settled first
				continue
			}
			wait, err := s.renewLock()
			if err != nil {
				return err
			}
			renew.Reset(wait)
		case <-idle.C:
			if idleSince.IsZero() {
				continue
			}
			if held := time.Since(idleSince); held >= t.cfg.SessionIdle || s.crowded() {
				return nil
			} else {
				idle.Reset(min(idleLook, t.cfg.SessionIdle-held))
			}
		case err := <-broken:
			if t.ctx.Err() == nil {
				return err
			}
			// The trigger stops, but a failure must still be recorded.
		case <-t.ctx.Done():
			return s.abandonAgain()
		}
	}
}

// show records that the first message of the session has arrived.
func (s *session) show() {
	if !s.shown {
		s.shown = true
		s.e.accepted()
	}
}

// accepted records that one requested session fewer is outstanding.
func (e *entity) accepted() {
	e.t.mu.Lock()
	defer e.t.mu.Unlock()
	e.sessions.accepting--
	e.t.room.Broadcast()
}

// crowded reports whether MaxSessions are locked.
func (s *session) crowded() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.e.sessions.held >= s.t.cfg.MaxSessions
}

// turnOver reports whether other sessions should have a turn.
func (s *session) turnOver() bool {
	return len(s.awaited) == 0 && s.t.cfg.SessionTurn > 0 && time.Since(s.began) > s.t.cfg.SessionTurn && s.crowded()
}

// enqueue inserts a message by its number.
func (s *session) enqueue(m *azservicebus.ReceivedMessage) {
	l := newLeasedMessage(s.e, m, time.Now())
	l.inSession = s.settle
	l.message.Session = s
	if l.misfit != "" {
		ctx, cancel := context.WithTimeout(s.t.ctx, namespace.SettleLimit)
		defer cancel()
		err := l.carryOut(ctx, s.r, m, &l.message, triggers.Verdict{Kind: triggers.Reject, Reason: l.misfit})
		if s.t.ctx.Err() == nil {
			s.t.noteDead(err)
		}
		if err != nil {
			s.t.log.Warn("a message that cannot be read is not in the dead letters yet; it will come again", "message", l.message.ID, "error", err)
		} else {
			s.t.log.Error("message dead-lettered", "message", l.message.ID, "reason", l.misfit)
		}
		return
	}
	i, _ := slices.BinarySearchFunc(s.queue, l.number(), func(o *leasedMessage, n int64) int { return int(o.number() - n) })
	s.queue = slices.Insert(s.queue, i, l)
	s.has(1)
	s.awaited = slices.DeleteFunc(s.awaited, func(n int64) bool { return n == l.number() })
}

func (l *leasedMessage) number() int64 {
	if l.received.SequenceNumber == nil {
		return 0
	}
	return *l.received.SequenceNumber
}

// endMessage records how a message ended. After one that failed, it takes back those that
// Receive has not returned, and when all have ended it sets retryAt. It returns false if the session must be
// closed: then the service redelivers the unsettled messages.
func (s *session) endMessage(how ending) (goesOn bool) {
	switch {
	case how.kind == triggers.Done || how.kind == triggers.Reject:
		s.has(-1)
	case how.kind == triggers.Retry, how.kind == triggers.Release && len(s.open)+len(s.again) > 1:
		s.again = append(s.again, how)
	default:
		return false
	}
	s.t.mu.Lock()
	s.open = slices.DeleteFunc(s.open, func(l *leasedMessage) bool {
		back := l != how.l && len(s.again) > 0 && s.t.buffer.Remove(&l.Item)
		if back {
			s.again = append(s.again, ending{l: l, kind: triggers.Release})
		}
		return back || l == how.l
	})
	s.t.mu.Unlock()
	if len(s.open) > 0 || len(s.again) == 0 {
		return true
	}
	delay, failed := time.Duration(0), false
	for _, each := range s.again {
		delay, failed = max(delay, each.delay), failed || each.kind == triggers.Retry
	}
	if failed {
		s.retryAt = time.Now().Add(delay)
		s.retrying(1)
	}
	return failed
}

// abandonAgain abandons the messages that failed and whose delay is over; they will be redelivered. Those
// that were released with them wait here for that: a delivery would count for them, too.
func (s *session) abandonAgain() error {
	ctx, cancel := context.WithTimeout(context.Background(), namespace.SettleLimit)
	defer cancel()
	for len(s.again) > 0 {
		how := s.again[0]
		if how.kind == triggers.Release {
			s.enqueue(how.l.received)
		} else if err := how.l.abandon(ctx, s.r, how.l.received, how.failures); err != nil {
			return fmt.Errorf("abandoning a message for its next attempt: %w", err)
		} else {
			s.awaited = append(s.awaited, how.l.number())
		}
		s.again = s.again[1:]
		s.has(-1)
	}
	if !s.retryAt.IsZero() {
		s.retryAt = time.Time{}
		s.retrying(-1)
	}
	return nil
}

// retrying adds more to the number of sessions whose message waits for its next attempt.
func (s *session) retrying(more int) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.e.sessions.retrying += more
}

// has adds more to the number of messages received and not settled.
func (s *session) has(more int) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.e.sessions.messages += more
}

// renewLock renews the session's lock, and returns the time until the next renewal.
func (s *session) renewLock() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(s.t.ctx, max(s.lock/2, time.Second))
	defer cancel()
	before := time.Now()
	err := s.r.RenewSessionLock(ctx, nil)
	switch {
	case err == nil:
		return max(renewAfter(s.lock)-time.Since(before), 0), nil
	case s.t.ctx.Err() != nil:
		return time.Hour, nil
	case namespace.LockLost(err):
		return 0, err
	}
	s.t.log.Debug("cannot renew a session's lock; will try again", "session", s.id, "error", err)
	return s.lock / 8, nil
}

// dropReceived drops the messages that are not in flight. The service redelivers them when the session
// is closed.
func (s *session) dropReceived(lost error) {
	t := s.t
	s.giveUp()
	s.show()
	t.mu.Lock()
	if !s.retryAt.IsZero() {
		s.e.sessions.retrying--
	}
	s.e.sessions.messages -= len(s.queue) + len(s.open) + len(s.again)
	s.open = slices.DeleteFunc(s.open, func(l *leasedMessage) bool { return t.buffer.Remove(&l.Item) })
	t.mu.Unlock()
	if lost == nil {
		return
	}
	t.log.Debug("a session was lost", "session", s.id, "error", lost)
	for _, l := range s.open {
		t.log.Warn("session lost before its message was settled; it will be redelivered", "session", s.id, "message", l.message.ID, "error", lost)
		l.Revoke()
	}
}

// settle settles a message in flight. If the session is lost, its message is redelivered.
func (s *session) settle(ctx context.Context, l *leasedMessage, m *triggers.Message, v triggers.Verdict) error {
	if s.ctx.Err() != nil {
		return nil
	}
	if v.Kind == triggers.Retry && v.Delay > 0 {
		l.expiresBefore(time.Now().Add(v.Delay))
	}
	how := ending{l: l, kind: v.Kind, delay: v.Delay, failures: m.Attempt}
	if v.Kind == triggers.Done || v.Kind == triggers.Reject {
		ctx, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		if err := l.carryOut(ctx, s.r, l.received, m, v); err != nil {
			if v.Kind == triggers.Reject && namespace.Refused(ctx, err) {
				return fmt.Errorf("settling message %s of session %s of %s as %v: %w", m.ID, s.id, s.e.path(), v.Kind, err) // the session is held, so the caller may try again
			}
			s.t.log.Warn("cannot settle a message of a session; it will be redelivered", "session", s.id, "message", m.ID, "verdict", v.Kind, "error", err)
			how = ending{}
		}
	}
	select {
	case s.settled <- how:
		s.t.mu.Lock()
		s.t.rate.Settled()
		s.t.mu.Unlock()
	case <-s.ctx.Done():
	}
	return nil
}

// State implements triggers.Session.
func (s *session) State(ctx context.Context) ([]byte, error) {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if s.known {
		return s.state, nil
	}
	if err := s.checkHeld(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	state, err := s.r.GetSessionState(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the state of session %s of %s: %w", s.id, s.e.path(), err)
	}
	s.state, s.known = state, true
	return state, nil
}

// SetState implements triggers.Session.
func (s *session) SetState(ctx context.Context, state []byte) error {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if err := s.checkHeld(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	s.known = false
	if err := s.r.SetSessionState(ctx, state, nil); err != nil {
		return fmt.Errorf("setting the state of session %s of %s: %w", s.id, s.e.path(), err)
	}
	s.state, s.known = slices.Clone(state), true
	return nil
}

func (s *session) checkHeld() error {
	if s.ctx.Err() != nil {
		return errSessionEnded
	}
	return nil
}
