package servicebus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
)

// loan is all that is kept of a message.
type loan struct {
	triggers.Delivery
	message  triggers.Message
	received *azservicebus.ReceivedMessage
	t        *trigger
	by       *link
	start    time.Time

	// Guarded by t.mu.
	duration time.Duration // of the lock
	renewAt  time.Time
	lost     bool
	retryAt  time.Time // it has failed, and is abandoned then
	failures int
}

// What a lock's duration is taken for where the clocks do not agree: the
// shortest that the service has, and the longest.
const (
	shortestLock = 5 * time.Second
	longestLock  = 5 * time.Minute
)

func newLoan(t *trigger, m *azservicebus.ReceivedMessage, now time.Time, by *link) *loan {
	l := &loan{t: t, received: m, by: by, start: now}
	l.failures = failuresOf(m)
	l.message = triggers.Message{ID: m.MessageID, Body: m.Body, Attempt: l.failures + 1}
	if m.Subject != nil {
		l.message.Subject = *m.Subject
	}
	if m.SessionID != nil {
		l.message.OrderingKey = *m.SessionID
	}
	if m.EnqueuedTime != nil {
		l.message.Enqueued = *m.EnqueuedTime
	}
	if len(m.ApplicationProperties) > 0 {
		l.message.Attributes = make(map[string]string, len(m.ApplicationProperties))
		for name, value := range m.ApplicationProperties {
			if name != failuresProperty {
				l.message.Attributes[name] = fmt.Sprint(value)
			}
		}
	}
	l.duration = shortestLock
	if m.LockedUntil != nil {
		if d := m.LockedUntil.Sub(now); d > 0 {
			l.duration = min(d, longestLock)
		}
	}
	l.renewAt = now.Add(l.duration / 2)
	l.Init(&l.message, l)
	return l
}

func failuresOf(m *azservicebus.ReceivedMessage) int {
	switch n := m.ApplicationProperties[failuresProperty].(type) {
	case int64:
		return int(max(n, 0))
	case int32:
		return int(max(n, 0))
	}
	return 0
}

// Settle implements triggers.Loan. A retry with a delay is held here, with its
// lock renewed, and abandoned when the delay is over: the service has no other
// delay that keeps a message what it is.
func (l *loan) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	if v.Kind == triggers.Retry && v.Delay > 0 {
		l.t.mu.Lock()
		l.retryAt, l.failures = time.Now().Add(v.Delay), m.Attempt
		l.t.mu.Unlock()
		signal(l.t.added)
		return nil
	}
	if err := l.end(ctx, m, v); err != nil {
		return fmt.Errorf("settling message %s of %s as %v: %w", m.ID, l.t.cfg.path(), v.Kind, err)
	}
	l.t.forget(l)
	return nil
}

// end carries a verdict out: over the link that the message came by, if that is
// there, and else by its lock's token. A lock that was lost is no error: the
// service lends the message again.
func (l *loan) end(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	var err error
	if l.by == l.t.link.Load() {
		first, stop := context.WithTimeout(ctx, linkLimit)
		unhook := context.AfterFunc(l.by.ctx, stop)
		err = l.carryOut(first, l.received, m, v)
		unhook()
		stop()
		if err == nil {
			return nil
		}
	}
	if !lockLost(err) {
		ctx, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		err = l.carryOut(ctx, &azservicebus.ReceivedMessage{LockToken: l.received.LockToken}, m, v)
	}
	if lockLost(err) {
		l.t.log.Warn("the lock was lost before the message was settled; it will come again", "message", m.ID, "verdict", v.Kind)
		return nil
	}
	return err
}

func lockLost(err error) bool {
	var e *azservicebus.Error
	return errors.As(err, &e) && e.Code == azservicebus.CodeLockLost
}

func (l *loan) carryOut(ctx context.Context, r *azservicebus.ReceivedMessage, m *triggers.Message, v triggers.Verdict) error {
	switch v.Kind {
	case triggers.Done:
		return l.t.receiver.CompleteMessage(ctx, r, nil)
	case triggers.Retry:
		return l.abandon(ctx, r, m.Attempt)
	case triggers.Release:
		return l.abandon(ctx, r, m.Attempt-1)
	case triggers.Reject:
		reason, text := clip(v.Reason, maxReason), clip(v.Reason+"\n"+v.Detail, maxReason)
		return l.t.receiver.DeadLetterMessage(ctx, r, &azservicebus.DeadLetterOptions{
			Reason: &reason, ErrorDescription: &text,
			PropertiesToModify: map[string]any{
				"Drover-Error": reason, "Drover-Attempts": int64(m.Attempt), "Drover-Function": v.Function,
				"Drover-Traceback": clip(v.Detail, maxDetail), failuresProperty: int64(0),
			},
		})
	}
	return fmt.Errorf("no such verdict: %d", v.Kind)
}

// The service takes 4,096 characters of a reason; a message's properties may
// have 64 KiB together.
const (
	maxReason = 4096
	maxDetail = 16 << 10
)

// clip keeps the end of a text: of a traceback that tells most.
func clip(text string, n int) string {
	text = strings.TrimSpace(text)
	if len(text) > n {
		text = strings.ToValidUTF8("..."+text[len(text)-n+3:], "")
	}
	return text
}

func (l *loan) abandon(ctx context.Context, r *azservicebus.ReceivedMessage, failures int) error {
	var o *azservicebus.AbandonMessageOptions
	if failures != failuresOf(l.received) {
		o = &azservicebus.AbandonMessageOptions{PropertiesToModify: map[string]any{failuresProperty: int64(failures)}}
	}
	return l.t.receiver.AbandonMessage(ctx, r, o)
}

func (t *trigger) forget(l *loan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.loans, l)
	t.faster()
}

// maxRenewals is how many locks are renewed at once: each takes a round trip.
const maxRenewals = 32

// care renews locks at half their time, and ends the delays of retries.
func (t *trigger) care() {
	for {
		var due []*loan
		now := time.Now()
		next := now.Add(time.Hour)
		t.mu.Lock()
		for l := range maps.Keys(t.loans) {
			at := l.renewAt
			if l.lost || t.cfg.MaxLockRenewal > 0 && now.Sub(l.start) > t.cfg.MaxLockRenewal {
				at = now.Add(time.Hour)
			}
			if !l.retryAt.IsZero() && l.retryAt.Before(at) {
				at = l.retryAt
			}
			switch {
			case !at.After(now):
				due = append(due, l)
			case at.Before(next):
				next = at
			}
		}
		t.nextCare = next
		t.mu.Unlock()
		if len(due) > 0 {
			t.look(due)
			continue
		}
		sleep := time.NewTimer(time.Until(next))
		select {
		case <-sleep.C:
		case <-t.added:
		case <-t.ctx.Done():
			sleep.Stop()
			return
		}
		sleep.Stop()
	}
}

// look does what is due, many at once.
func (t *trigger) look(due []*loan) {
	var all sync.WaitGroup
	defer all.Wait()
	room := make(chan struct{}, maxRenewals)
	for _, l := range due {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			t.mu.Lock()
			over := !l.retryAt.IsZero() && !time.Now().Before(l.retryAt)
			failures := l.failures
			t.mu.Unlock()
			if over {
				t.giveBack(l, failures)
				return
			}
			t.renew(l)
		})
	}
}

// giveBack abandons a message whose delay is over.
func (t *trigger) giveBack(l *loan, failures int) {
	m := l.message
	m.Attempt = failures
	err := l.end(t.ctx, &m, triggers.Verdict{Kind: triggers.Retry})
	if err == nil || t.ctx.Err() != nil {
		t.forget(l)
		return
	}
	t.log.Warn("cannot give a message back for its next attempt; will try until its lock ends", "message", m.ID, "error", err)
	t.mu.Lock()
	l.retryAt = time.Now().Add(time.Second)
	if l.lost {
		delete(t.loans, l)
	}
	t.mu.Unlock()
}

func (t *trigger) renew(l *loan) {
	ctx, cancel := context.WithTimeout(t.ctx, max(l.duration/2, time.Second))
	defer cancel()
	before := time.Now()
	err := t.receiver.RenewMessageLock(ctx, &azservicebus.ReceivedMessage{LockToken: l.received.LockToken}, nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		l.renewAt = before.Add(l.duration / 2)
	case lockLost(err):
		l.lost = true
		t.log.Warn("the lock of a message that is worked on was lost; it will run again elsewhere", "message", l.message.ID)
	default:
		l.renewAt = time.Now().Add(l.duration / 8)
		t.log.Debug("cannot renew a lock; will try again", "message", l.message.ID, "error", err)
	}
}
