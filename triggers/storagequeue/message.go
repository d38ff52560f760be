package storagequeue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
)

// leasedMessage is the state of a leased message.
type leasedMessage struct {
	lease.Item[*leasedMessage]
	message   triggers.Message
	t         *shared
	text      string // as received
	misfit    string // the reason why no function can receive it
	delivered string // the receipt of the delivery
	dequeued  int64
	failures  int // in the ledger
	expires   time.Time

	// A receipt is valid for one request, which returns the next receipt. So requests are
	// sent one at a time.
	asking  sync.Mutex
	receipt string
	copied  bool // to the poison queue
}

// newLeasedMessage returns the lease of a received message. asked is when it was requested,
// by this machine's clock; the lease is counted from then.
func (t *shared) newLeasedMessage(m *azqueue.DequeuedMessage, asked time.Time) *leasedMessage {
	l := &leasedMessage{t: t, text: deref(m.MessageText), dequeued: deref(m.DequeueCount), delivered: deref(m.PopReceipt), receipt: deref(m.PopReceipt), expires: deref(m.ExpirationTime)}
	l.message = triggers.Message{ID: deref(m.MessageID), Subject: t.queue.name, Enqueued: deref(m.InsertionTime), Origin: l}
	body, err := t.cfg.Encoding.decode(l.text)
	if err != nil {
		l.misfit, body = err.Error(), []byte(l.text)
	}
	l.message.Body = body
	if l.dequeued > 1 {
		if l.failures, err = t.cfg.Ledger.failures(t.key, l.message.ID); err != nil {
			t.log.Warn("cannot read how often a message has failed", "message", l.message.ID, "error", err)
		}
	}
	l.message.Attempt = t.attempt(l.failures, l.dequeued)
	if most := t.cfg.MaxDequeueCount; most > 0 && l.dequeued > most {
		l.misfit = fmt.Sprintf("it was delivered %d times, more than max_dequeue_count (%d), and was never settled: it may crash its worker", l.dequeued, most)
	}
	l.Init(l, &l.message, l)
	l.SetToken(l.message.ID, l.receipt)
	l.Begin(asked, t.cfg.Lease, 0)
	return l
}

// Properties implements triggers.Origin. The receipt is the delivery's; each renewal
// replaces it, and Native has the current one.
func (l *leasedMessage) Properties() triggers.Properties {
	out := propertiesOf(l.dequeued, l.expires)
	out[triggers.PopReceipt] = l.delivered
	return out
}

// never is the year that the service reports as the expiry of messages that do not expire.
const never = 9999

// propertiesOf returns the properties that require no lease.
func propertiesOf(dequeued int64, expires time.Time) triggers.Properties {
	out := triggers.Properties{triggers.DequeueCount: triggers.Number(dequeued)}
	if !expires.IsZero() && expires.Year() < never {
		out[triggers.ExpiresAt] = expires.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// Native implements triggers.Origin, with the names of the service.
func (l *leasedMessage) Native() map[string]any {
	l.asking.Lock()
	receipt := l.receipt
	l.asking.Unlock()
	l.t.mu.Lock()
	expires := l.Expires()
	l.t.mu.Unlock()
	return map[string]any{
		"Id": l.message.ID, "DequeueCount": l.dequeued, "PopReceipt": receipt,
		"InsertionTime": l.message.Enqueued, "ExpirationTime": l.expires, "NextVisibleTime": expires,
	}
}

// attempt returns the attempt of a message: one more than the failures. It is raised so that the last
// delivery allowed by MaxDequeueCount is also the last attempt.
func (t *shared) attempt(failures int, dequeued int64) int {
	attempt := failures + 1
	if t.cfg.MaxDequeueCount > 0 && t.cfg.MaxAttempts > 0 {
		attempt = max(attempt, t.cfg.MaxAttempts-int(max(t.cfg.MaxDequeueCount-dequeued, 0)))
	}
	return attempt
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Settle implements triggers.Lease.
func (l *leasedMessage) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	l.asking.Lock()
	defer l.asking.Unlock()
	var err error
	switch v.Kind {
	case triggers.Done:
		err = l.complete(ctx)
	case triggers.Reject:
		err = l.reject(ctx, m, v)
	case triggers.Retry:
		l.failed(m.Attempt)
		err = l.abandon(ctx, v.Delay)
	case triggers.Release:
		err = l.abandon(ctx, 0)
	default:
		err = fmt.Errorf("no such verdict: %d", v.Kind)
	}
	if err == nil {
		l.t.untrack(l)
	}
	return err
}

// failed records the number of failures. If it cannot be recorded, the message gets one more attempt.
func (l *leasedMessage) failed(n int) {
	if err := l.t.cfg.Ledger.set(l.t.key, l.message.ID, n, l.expires); err != nil {
		l.t.troubles.Set(triggers.TroubleAttempts, fmt.Sprintf("failures cannot be counted, so messages may have more attempts than max_attempts: is the disk of data_dir full? %v", err))
		l.t.log.Warn("cannot record the failure of a message; it may get more attempts than max_attempts", "message", l.message.ID, "error", err)
		return
	}
	l.failures = n
	if l.t.troubles.Clear(triggers.TroubleAttempts) {
		l.t.log.Info("failures are counted again")
	}
}

// complete deletes the message and its entry in the ledger. A message that was redelivered in
// the meantime is deleted when it is received here again.
func (l *leasedMessage) complete(ctx context.Context) error {
	err := l.t.queue.remove(ctx, l.message.ID, l.receipt)
	switch {
	case stale(err):
		l.t.log.Debug("a message that is done was redelivered, or is gone; it will be deleted if it is received again", "message", l.message.ID)
		l.t.finished(l.message.ID)
	case err != nil:
		return err
	}
	if l.failures > 0 {
		if err := l.t.cfg.Ledger.forget(l.t.key, l.message.ID); err != nil {
			l.t.log.Debug("cannot delete a message's failures from the ledger; they expire", "message", l.message.ID, "error", err)
		}
	}
	return nil
}

// reject moves a message to the poison queue: it copies, then deletes it. A crash between the
// two duplicates the message, and never loses it.
func (l *leasedMessage) reject(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	if !l.copied {
		if err := l.t.poison.copy(ctx, rejected{m, v, l.text, l.dequeued}); err != nil {
			return err
		}
		l.copied = true
	}
	return l.complete(ctx)
}

// abandon makes the message visible after a delay.
func (l *leasedMessage) abandon(ctx context.Context, delay time.Duration) error {
	receipt, err := l.t.queue.hide(ctx, l.message.ID, l.receipt, delay)
	switch {
	case stale(err):
		l.t.log.Warn("the lease expired before the message was released; it may run elsewhere", "message", l.message.ID)
		return nil
	case forbidden(err):
		l.t.forbiddenToUpdate(err)
		l.t.expect(time.Now().Add(l.t.cfg.Lease))
		return nil // it is redelivered when its lease expires
	case err != nil:
		return err
	}
	l.receipt = receipt
	l.t.expect(time.Now().Add(time.Duration(*seconds(delay)) * time.Second))
	return nil
}

var errUntracked = errors.New("the message was settled")

// renew hides the message for another lease.
func (l *leasedMessage) renew(ctx context.Context) error {
	t := l.t
	l.asking.Lock()
	defer l.asking.Unlock()
	t.mu.Lock()
	tracked := l.Tracked()
	t.mu.Unlock()
	if !tracked {
		return errUntracked
	}
	receipt, err := t.queue.hide(ctx, l.message.ID, l.receipt, t.cfg.Lease)
	switch {
	case stale(err):
		return lease.ErrLost
	case forbidden(err):
		t.forbiddenToUpdate(err)
	case err != nil:
		t.log.Debug("cannot renew a lease; will try again", "message", l.message.ID, "error", err)
	}
	if err == nil {
		l.receipt = receipt
		l.SetToken(l.message.ID, receipt)
	}
	return err
}
