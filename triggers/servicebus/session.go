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
)

const (
	// crowdedIdle is how long a session without messages is held where there is
	// no room for another.
	crowdedIdle = 50 * time.Millisecond
	// idleLook is how often one that is idle looks whether others need its room.
	idleLook = 500 * time.Millisecond
)

// errSessionEnded says that a session is no longer held here.
var errSessionEnded = errors.New("the session is not held any more; its messages come again")

// session is one that is held. Its messages are handed out one at a time, in the
// order of their numbers; one that failed comes before those behind it.
type session struct {
	t     *trigger
	e     *entity
	r     *azservicebus.SessionReceiver
	id    string
	began time.Time
	lock  time.Duration

	settled chan ending     // by the handler
	ctx     context.Context // ends when it is not held any more
	giveUp  context.CancelFunc

	// run's own.
	queue   []*loan // that came, and wait for their turn
	current *loan   // that is handed out, or waits for its next attempt
	shown   bool    // its first message was handed out
	retryAt time.Time
	failed  int   // how often current has
	awaited int64 // the number of one that was given back and is to come again

	stateMu sync.Mutex
	state   []byte
	known   bool // state is what the service has
}

// ending is how the message that was handed out ended.
type ending struct {
	kind     triggers.Kind // Done, Reject, Retry; else the session is given up
	delay    time.Duration
	failures int
}

func newSession(e *entity, r *azservicebus.SessionReceiver) *session {
	now := time.Now()
	s := &session{t: e.t, e: e, r: r, id: r.SessionID(), began: now, lock: e.lockOf(r.LockedUntil(), now), settled: make(chan ending)}
	s.ctx, s.giveUp = context.WithCancel(context.Background())
	return s
}

// run holds the session until it is lost, idle, has had its turn, or the trigger ends.
func (s *session) run() {
	t := s.t
	t.mu.Lock()
	s.e.sessions++
	t.mu.Unlock()
	ctx, cancel := context.WithCancel(t.ctx)
	came, broken := make(chan *azservicebus.ReceivedMessage), make(chan error, 1)
	var reading sync.WaitGroup
	reading.Go(func() { broken <- s.read(ctx, came) })

	lost := s.serve(came, broken)
	cancel()
	reading.Wait()
	s.end(lost)
	closing, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if err := s.r.Close(closing); err != nil && lost == nil {
		t.log.Debug("a session is given up by the end of its lock", "session", s.id, "error", err)
	}
	t.mu.Lock()
	s.e.sessions--
	t.mu.Unlock()
}

// read receives one message after the other. With one asked for at a time, none
// comes that nobody waits for: the SDK would give that back, and the next one
// would overtake it.
func (s *session) read(ctx context.Context, came chan<- *azservicebus.ReceivedMessage) error {
	for {
		got, err := s.r.ReceiveMessages(ctx, 1, nil)
		if len(got) == 0 {
			if err == nil {
				err = errSessionEnded // the link or the connection went
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

// serve is the life of the session; the error is how it was lost.
func (s *session) serve(came <-chan *azservicebus.ReceivedMessage, broken <-chan error) error {
	t := s.t
	renew := time.NewTimer(renewAfter(s.lock))
	defer renew.Stop()
	idle, retry := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer idle.Stop()
	defer retry.Stop()
	var idleSince time.Time
	for {
		if s.current == nil {
			if s.turnOver() {
				return nil
			}
			if s.awaited == 0 && len(s.queue) > 0 {
				s.current, s.queue = s.queue[0], s.queue[1:]
				idleSince = time.Time{}
				t.mu.Lock()
				t.hand(s.current)
				t.mu.Unlock()
				s.show()
			} else if idleSince.IsZero() {
				idleSince = time.Now()
				idle.Reset(crowdedIdle)
			}
		}
		in := came
		if len(s.queue) > 0 && s.awaited == 0 {
			in = nil
		}
		select {
		case m := <-in:
			s.take(m)
		case how := <-s.settled:
			switch how.kind {
			case triggers.Done, triggers.Reject:
				s.current = nil
				s.has(-1)
			case triggers.Retry:
				s.retryAt, s.failed = time.Now().Add(how.delay), how.failures
				s.retrying(1)
				retry.Reset(how.delay)
			default:
				return nil
			}
		case <-retry.C:
			if s.retryAt.IsZero() {
				continue
			}
			if err := s.giveBack(); err != nil {
				return err
			}
		case <-renew.C:
			if s.current != nil && t.cfg.MaxLockRenewal > 0 && time.Since(s.current.start) > t.cfg.MaxLockRenewal {
				renew.Reset(s.lock / 8) // it is lost when its lock ends; perhaps it is done before
				continue
			}
			wait, err := s.renew()
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
			// It is the stop: the failure is still to be kept.
		case <-t.ctx.Done():
			if !s.retryAt.IsZero() {
				return s.giveBack()
			}
			return nil
		}
	}
}

// show ends the wait for the session's first message.
func (s *session) show() {
	if !s.shown {
		s.shown = true
		s.e.accepted()
	}
}

// crowded reports whether all the room for sessions is taken.
func (s *session) crowded() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.e.sessions >= s.t.cfg.MaxSessions
}

// turnOver reports whether others should have the room.
func (s *session) turnOver() bool {
	return s.awaited == 0 && s.t.cfg.SessionTurn > 0 && time.Since(s.began) > s.t.cfg.SessionTurn && s.crowded()
}

// take puts a message in its place.
func (s *session) take(m *azservicebus.ReceivedMessage) {
	l := newLoan(s.e, m, time.Now())
	l.session = s
	l.message.Session = s
	if l.misfit != "" {
		ctx, cancel := context.WithTimeout(s.t.ctx, settleLimit)
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
	i, _ := slices.BinarySearchFunc(s.queue, l.number(), func(o *loan, n int64) int { return int(o.number() - n) })
	s.queue = slices.Insert(s.queue, i, l)
	s.has(1)
	if l.number() == s.awaited {
		s.awaited = 0
	}
}

func (l *loan) number() int64 {
	if l.received.SequenceNumber == nil {
		return 0
	}
	return *l.received.SequenceNumber
}

// giveBack abandons the message whose delay is over; it comes again.
func (s *session) giveBack() error {
	l := s.current
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	if err := l.abandon(ctx, s.r, l.received, s.failed); err != nil {
		return fmt.Errorf("giving a message back for its next attempt: %w", err)
	}
	s.current, s.retryAt, s.awaited = nil, time.Time{}, l.number()
	s.has(-1)
	s.retrying(-1)
	return nil
}

// retrying counts the sessions whose message waits for its next attempt.
func (s *session) retrying(more int) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.e.retrying += more
}

// has counts the messages that came and are not settled.
func (s *session) has(more int) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.e.inSessions += more
}

// renew renews the session's lock, and returns when to do so again.
func (s *session) renew() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(s.t.ctx, max(s.lock/2, time.Second))
	defer cancel()
	before := time.Now()
	err := s.r.RenewSessionLock(ctx, nil)
	switch {
	case err == nil:
		return max(renewAfter(s.lock)-time.Since(before), 0), nil
	case s.t.ctx.Err() != nil:
		return time.Hour, nil
	case lockLost(err):
		return 0, err
	}
	s.t.log.Debug("cannot renew a session's lock; will try again", "session", s.id, "error", err)
	return s.lock / 8, nil
}

// end takes back what was not handed out: all comes again when the session is closed.
func (s *session) end(lost error) {
	t := s.t
	s.giveUp()
	s.show()
	t.mu.Lock()
	if !s.retryAt.IsZero() {
		s.e.retrying--
	}
	s.e.inSessions -= len(s.queue)
	if s.current != nil {
		s.e.inSessions--
	}
	t.held = slices.DeleteFunc(t.held, func(l *loan) bool {
		if l == s.current && l.session == s {
			s.current = nil
			return true
		}
		return false
	})
	t.mu.Unlock()
	if lost == nil {
		return
	}
	if s.current != nil && s.retryAt.IsZero() {
		t.log.Warn("a session was lost before its message was settled; it will run again", "session", s.id, "message", s.current.message.ID, "error", lost)
		s.current.Revoke()
	} else {
		t.log.Debug("a session was lost", "session", s.id, "error", lost)
	}
}

// settle ends the message that was handed out. It belongs to the session: when
// that is lost, the message is, and comes again.
func (s *session) settle(ctx context.Context, l *loan, m *triggers.Message, v triggers.Verdict) error {
	if s.ctx.Err() != nil {
		return nil
	}
	if v.Kind == triggers.Retry && v.Delay > 0 {
		l.expiresBefore(time.Now().Add(v.Delay))
	}
	how := ending{kind: v.Kind, delay: v.Delay, failures: m.Attempt}
	if v.Kind == triggers.Done || v.Kind == triggers.Reject {
		ctx, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		if err := l.carryOut(ctx, s.r, l.received, m, v); err != nil {
			if v.Kind == triggers.Reject && refusedByService(ctx, err) {
				return fmt.Errorf("settling message %s of session %s of %s as %v: %w", m.ID, s.id, s.e.path(), v.Kind, err) // the session is held, and it is tried again
			}
			s.t.log.Warn("a message of a session could not be settled; it will come again", "session", s.id, "message", m.ID, "verdict", v.Kind, "error", err)
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
	if err := s.held(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
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
	if err := s.held(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	s.known = false
	if err := s.r.SetSessionState(ctx, state, nil); err != nil {
		return fmt.Errorf("setting the state of session %s of %s: %w", s.id, s.e.path(), err)
	}
	s.state, s.known = slices.Clone(state), true
	return nil
}

func (s *session) held() error {
	if s.ctx.Err() != nil {
		return errSessionEnded
	}
	return nil
}
