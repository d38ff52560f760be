package servicebus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// leasedMessage is the state of a leased message.
type leasedMessage struct {
	lease.Item[*leasedMessage]
	message  triggers.Message
	received *azservicebus.ReceivedMessage
	origin   convert.Origin
	e        *entity
	by       *link
	misfit   string // the reason why no function can receive it
	start    time.Time
	// inSession settles a message of a session; nil without sessions.
	inSession func(context.Context, *leasedMessage, *triggers.Message, triggers.Verdict) error

	// Guarded by t.mu.
	retryAt  time.Time // when a failed message is abandoned
	failures int
}

// maxRenewal is the longest time between two renewals. A lock of five minutes requires one only
// every two and a half minutes. But if the clocks differ, a lock may be shorter than it seems.
const maxRenewal = 10 * time.Second

func renewAfter(lock time.Duration) time.Duration { return min(lock/2, maxRenewal) }

func newLeasedMessage(e *entity, m *azservicebus.ReceivedMessage, now time.Time) *leasedMessage {
	l := &leasedMessage{e: e, received: m, origin: convert.Origin{Of: m}, start: now}
	l.failures = convert.Failures(m)
	if e.t.cfg.CountDeliveries {
		l.failures = max(l.failures, int(m.DeliveryCount)-1)
	}
	l.message, l.misfit = convert.Message(m)
	l.message.Attempt, l.message.Origin = l.failures+1, &l.origin
	lock := namespace.ShortestLock
	if m.LockedUntil != nil {
		lock = e.lockOf(*m.LockedUntil, now)
	}
	l.Init(l, &l.message, l)
	l.SetToken(e.path(), string(m.LockToken[:]))
	l.Begin(now, lock, maxRenewal)
	return l
}

// Settle implements triggers.Lease. A message with a retry delay stays locked here, and is
// abandoned when the delay is over: the service has no other delay without copying the message.
func (l *leasedMessage) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	if l.inSession != nil {
		return l.inSession(ctx, l, m, v)
	}
	t := l.e.t
	t.mu.Lock()
	lost := l.Lost()
	t.mu.Unlock()
	if lost {
		t.untrack(l)
		return nil
	}
	if v.Kind == triggers.Retry && v.Delay > 0 {
		// A message that expires before its retry stays locked. The service then handles its expiry.
		if !l.expiresBefore(time.Now().Add(v.Delay)) && t.cfg.Scheduled {
			err := l.retryByCopy(ctx, m, v.Delay)
			if !errors.Is(err, azservicebus.ErrMessageTooLarge) {
				return err
			}
			t.log.Warn("a copy of the message would be too large; the message is held until its next attempt", "message", m.ID, "error", err)
		}
		t.mu.Lock()
		l.retryAt, l.failures = time.Now().Add(v.Delay), m.Attempt
		t.keeper.Unrecord(&l.Item)
		t.mu.Unlock()
		t.keeper.Check()
		return nil
	}
	if err := l.end(ctx, m, v); err != nil {
		return fmt.Errorf("settling message %s of %s as %v: %w", m.ID, l.e.path(), v.Kind, err)
	}
	t.untrack(l)
	return nil
}

// retryByCopy schedules a copy and then completes the message. A crash between the two
// duplicates the message, and never loses it.
func (l *leasedMessage) retryByCopy(ctx context.Context, m *triggers.Message, delay time.Duration) error {
	at := time.Now().Add(delay).Truncate(time.Millisecond) // the resolution of AMQP
	sending, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	if err := l.e.copies.schedule(sending, l.e.current.Load().client, l.e.queue, convert.CopyForRetry(l.received, m.Attempt, at)); err != nil {
		return fmt.Errorf("scheduling message %s of %s for its next attempt: %w", m.ID, l.e.path(), namespace.Explain(err, namespace.Send))
	}
	err := l.end(ctx, m, triggers.Verdict{Kind: triggers.Done})
	l.e.t.untrack(l)
	if err != nil {
		// The copy must not be sent again.
		l.e.t.log.Warn("a message was copied for its next attempt and could not be completed; it will run twice", "message", m.ID, "error", err)
	}
	return nil
}

// expiresBefore reports whether the message expires before a retry is due, and logs it.
func (l *leasedMessage) expiresBefore(at time.Time) bool {
	expires := convert.Expiry(l.received)
	if expires.IsZero() || expires.After(at) {
		return false
	}
	l.e.t.log.Warn("message expires before its retry is due; give it a longer time to live, or lower retry.max",
		"message", l.message.ID, "expires", expires, "retry_at", at)
	return true
}

// end carries out a verdict: over the link that delivered the message if it is current, otherwise
// by lock token. A lost lock is not an error: the service redelivers the message.
func (l *leasedMessage) end(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	var err error
	if now := l.e.current.Load(); l.by == now {
		if err = l.carryOut(now.settleContext(), now.receiver, l.received, m, v); err == nil {
			return nil
		}
	}
	if !namespace.LockLost(err) && ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
		defer cancel()
		token := &azservicebus.ReceivedMessage{LockToken: l.received.LockToken}
		receiver := l.e.current.Load().receiver
		// Before a settlement, the SDK waits for seconds until it repairs a connection. Before a
		// renewal it waits much less.
		if err = receiver.RenewMessageLock(ctx, token, nil); err == nil {
			err = l.carryOut(ctx, receiver, token, m, v)
		}
	}
	if namespace.LockLost(err) {
		l.e.t.log.Warn("lock lost before its message was settled; it will be redelivered", "message", m.ID, "verdict", v.Kind)
		return nil
	}
	return err
}

// settler has the methods that Receiver and SessionReceiver share.
type settler interface {
	CompleteMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.AbandonMessageOptions) error
	DeadLetterMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.DeadLetterOptions) error
}

func (l *leasedMessage) carryOut(ctx context.Context, by settler, r *azservicebus.ReceivedMessage, m *triggers.Message, v triggers.Verdict) error {
	switch v.Kind {
	case triggers.Done:
		return by.CompleteMessage(ctx, r, nil)
	case triggers.Retry:
		return l.abandon(ctx, by, r, m.Attempt)
	case triggers.Release:
		return l.abandon(ctx, by, r, m.Attempt-1)
	case triggers.Reject:
		return l.deadLetter(ctx, by, r, m, v)
	}
	return fmt.Errorf("no such verdict: %d", v.Kind)
}

// deadLetter moves a message to the dead letters. Its properties may already be near the service's
// size limit. If the service refuses the traceback, deadLetter omits it. If that fails too, it
// omits everything but a short reason.
func (l *leasedMessage) deadLetter(ctx context.Context, by settler, r *azservicebus.ReceivedMessage, m *triggers.Message, v triggers.Verdict) error {
	reason, text := triggers.Tail(v.Reason, maxReason), triggers.Tail(v.Reason+"\n"+v.Detail, maxReason)
	properties := map[string]any{
		"Drover-Error": reason, "Drover-Attempts": int64(m.Attempt), "Drover-Function": v.Function,
		"Drover-Traceback": triggers.Tail(v.Detail, maxDetail), convert.RejectedProperty: time.Now().UTC().Format(time.RFC3339Nano), convert.FailuresProperty: "",
	}
	move := func() error {
		return by.DeadLetterMessage(ctx, r, &azservicebus.DeadLetterOptions{Reason: &reason, ErrorDescription: &text, PropertiesToModify: properties})
	}
	err := move()
	if !namespace.Refused(ctx, err) {
		return err
	}
	if r != nil {
		// The SDK treats a message refused over its link as settled, and would send no request.
		byToken := *r
		byToken.RawAMQPMessage = nil
		r = &byToken
	}
	delete(properties, "Drover-Traceback")
	text = reason
	if again := move(); !namespace.Refused(ctx, again) {
		return again
	}
	reason, text, properties = triggers.Tail(v.Reason, shortReason), "", nil
	if again := move(); !namespace.Refused(ctx, again) {
		return again
	}
	return err // the error of the complete letter is the most useful one
}

// The service accepts 4,096 characters of a reason, and 64 KiB for all properties of a message.
const (
	maxReason = 4096
	maxDetail = 16 << 10
	// shortReason is the length to which a reason is cut if almost nothing fits.
	shortReason = 256
)

func (l *leasedMessage) abandon(ctx context.Context, by settler, r *azservicebus.ReceivedMessage, failures int) error {
	var o *azservicebus.AbandonMessageOptions
	if failures != convert.Failures(l.received) {
		o = &azservicebus.AbandonMessageOptions{PropertiesToModify: map[string]any{convert.FailuresProperty: convert.FailuresHere(failures, l.received)}}
	}
	return by.AbandonMessage(ctx, r, o)
}
