package servicebus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
	"github.com/drover-run/drover/triggers/servicebus/wire"
)

// This file takes dead letters out of their sub-queue. The service locks them in
// their order only: to get at one of them, all before it are received and held, and
// released at the end.

const (
	// takeLimit bounds the wait for dead letters to be delivered. What does not
	// come by then somebody else has.
	takeLimit = 2 * time.Second
	// maxTake is how many are received at once.
	maxTake = 256
	// maxLook is how many messages are looked at for a copy.
	maxLook = 10_000
	// freshFor is how long a lock is relied upon that was had here.
	freshFor = 2 * time.Second
	// windowSlack is how long before its end a window for duplicates is not relied
	// upon any more.
	windowSlack = 30 * time.Second
)

// held is a dead letter that is locked here.
type held struct {
	m    *azservicebus.ReceivedMessage
	from time.Time // that it is locked
}

// take locks a dead letter; nil if it is gone. Those whose locks ended come again
// meanwhile: it is at its end when nothing else comes.
func (g *grave) take(ctx context.Context, sequence int64) (*azservicebus.ReceivedMessage, error) {
	g.taking.Lock()
	defer g.taking.Unlock()
	seen := make(map[int64]bool)
	for ask := 1; ; ask = min(8*ask, maxTake) {
		if h := g.held[sequence]; h != nil {
			delete(g.held, sequence)
			if g.fresh(ctx, h) {
				return h.m, nil
			}
		}
		if ask > 1 {
			if there, err := g.has(ctx, sequence); err != nil || !there {
				return nil, err
			}
		}
		got, err := g.receive(ctx, ask)
		if err != nil {
			return nil, fmt.Errorf("taking dead letter %d of %s: %w", sequence, g.path(), namespace.Explain(err, namespace.Listen))
		}
		before, now := len(seen), time.Now()
		for _, m := range got {
			n := convert.Deref(m.SequenceNumber)
			seen[n], g.held[n] = true, &held{m, now}
		}
		if len(seen) > before {
			continue
		}
		there, err := g.has(ctx, sequence)
		if err == nil && there {
			err = fmt.Errorf("dead letter %d of %s is locked: another receiver has it, or a command that was killed; its lock ends within 5 minutes", sequence, g.path())
		}
		return nil, err
	}
}

// fresh reports whether a dead letter is still locked, for long enough.
func (g *grave) fresh(ctx context.Context, h *held) bool {
	lock := namespace.ShortestLock
	if until := convert.Deref(h.m.LockedUntil).Sub(h.from); until > 0 && until < namespace.LongestLock {
		lock = until
	}
	if time.Since(h.from) < min(freshFor, lock/3) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	return g.r.RenewMessageLock(ctx, h.m, nil) == nil
}

func (g *grave) receive(ctx context.Context, n int) ([]*azservicebus.ReceivedMessage, error) {
	limited, cancel := context.WithTimeout(ctx, takeLimit)
	defer cancel()
	got, err := g.r.ReceiveMessages(limited, n, namespace.AfterFirst(n))
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = nil // nothing came
	}
	return got, err
}

// has reports whether a dead letter is there, locked or not.
func (g *grave) has(ctx context.Context, sequence int64) (bool, error) {
	seen, err := namespace.PeekPage(ctx, g.r, sequence, 1, nil)
	if err != nil {
		return false, fmt.Errorf("looking for dead letter %d of %s: %w", sequence, g.path(), namespace.Explain(err, namespace.Listen))
	}
	return len(seen) == 1 && convert.Deref(seen[0].SequenceNumber) == sequence, nil
}

// complete removes a dead letter, also where its lock is lost meanwhile: it is
// locked anew.
func (g *grave) complete(ctx context.Context, m *azservicebus.ReceivedMessage) error {
	limited, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	err := g.r.CompleteMessage(limited, m, nil)
	for range 3 {
		if !namespace.LockLost(err) {
			break
		}
		again, missing := g.take(ctx, convert.Deref(m.SequenceNumber))
		if again == nil {
			return missing
		}
		err = g.r.CompleteMessage(limited, again, nil)
	}
	if err != nil {
		return fmt.Errorf("removing dead letter %d of %s: %w", convert.Deref(m.SequenceNumber), g.path(), err)
	}
	return nil
}

// close releases what is locked, over another receiver, which never receives: the first one
// may have requested more than has arrived, and released messages would
// come over it again, and stay locked.
func (g *grave) close(ctx context.Context) error {
	g.taking.Lock()
	defer g.taking.Unlock()
	if len(g.held) == 0 {
		return g.r.Close(ctx)
	}
	r, err := g.receiver()
	if err = errors.Join(err, g.r.Close(ctx)); err != nil {
		return err
	}
	g.r = r
	var all sync.WaitGroup
	room := make(chan struct{}, lease.MaxConcurrent)
	for h := range maps.Values(g.held) {
		room <- struct{}{}
		all.Go(func() {
			// Where that fails its lock ends some time.
			_ = r.AbandonMessage(ctx, &azservicebus.ReceivedMessage{LockToken: h.m.LockToken}, nil)
			<-room
		})
	}
	all.Wait()
	clear(g.held)
	return r.Close(ctx)
}

func (d *deadLetters) own(l triggers.DeadLetter) (own, error) {
	o, ok := l.Own.(own)
	if !ok || o.g.d != d {
		return own{}, fmt.Errorf("dead letter %s is of another source", l.ID)
	}
	return o, nil
}

// Remove implements triggers.DeadLetters.
func (d *deadLetters) Remove(ctx context.Context, l triggers.DeadLetter) error {
	o, err := d.own(l)
	if err != nil {
		return err
	}
	m, err := o.g.take(ctx, o.sequence)
	if err != nil || m == nil {
		return err
	}
	return o.g.complete(ctx, m)
}

// origin is the queue or topic that dead letters are replayed to.
type origin struct {
	sender *azservicebus.Sender
	// keepsIDs says that it takes a copy under the id of the message that it was.
	// Where duplicates are dropped, or that is not known, it would be lost.
	keepsIDs bool
	window   time.Duration // in which duplicates are dropped; 0 is never, or not known
}

// openOrigin finds out about the queue or topic.
func (d *deadLetters) openOrigin(ctx context.Context) (*origin, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.origin != nil {
		return d.origin, nil
	}
	to := d.cfg.Queue + d.cfg.Topic // one of them is empty
	out := new(origin)
	subscriptions, err := out.inspect(ctx, d.cfg)
	switch {
	case d.cfg.Topic == "" || d.cfg.Shared || err == nil && subscriptions == len(d.graves):
	case err != nil:
		return nil, fmt.Errorf("%w, maybe: topic %s gives each message to all its subscriptions, and to count them takes the right %s (%s)",
			triggers.ErrShared, to, namespace.Manage.Claim, namespace.Manage.Role)
	default:
		return nil, fmt.Errorf("%w: topic %s has %d subscriptions, and gives each message to all of them", triggers.ErrShared, to, subscriptions)
	}
	if out.sender, err = namespace.OpenSender(ctx, d.client, to); err != nil {
		return nil, fmt.Errorf("sending to %s: %w", to, namespace.Explain(err, namespace.Send))
	}
	d.origin = out
	return out, nil
}

// inspect asks the admin API, which takes the right Manage: without, the error
// says so, and nothing is known.
func (o *origin) inspect(ctx context.Context, cfg DeadLettersConfig) (subscriptions int, err error) {
	c, done, err := cfg.Access.Admin()
	if err != nil {
		return 0, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, namespace.AdminLimit)
	defer cancel()
	var duplicates *bool
	var window *string
	if cfg.Queue != "" {
		q, err := c.GetQueue(ctx, cfg.Queue, nil)
		if err != nil || q == nil {
			return 0, namespace.OrMissing(err)
		}
		duplicates, window = q.RequiresDuplicateDetection, q.DuplicateDetectionHistoryTimeWindow
	} else {
		t, err := c.GetTopic(ctx, cfg.Topic, nil)
		if err != nil || t == nil {
			return 0, namespace.OrMissing(err)
		}
		duplicates, window = t.RequiresDuplicateDetection, t.DuplicateDetectionHistoryTimeWindow
		r, err := c.GetTopicRuntimeProperties(ctx, cfg.Topic, nil)
		if err != nil || r == nil {
			return 0, namespace.OrMissing(err)
		}
		subscriptions = int(r.SubscriptionCount)
	}
	o.keepsIDs = !is(duplicates)
	if is(duplicates) {
		o.window = namespace.LockTime(window) // the least that it is, where it is written in days
	}
	return subscriptions, nil
}

// Replay implements triggers.DeadLetters: it locks the dead letter, sends a copy,
// and when the service has that completes it.
func (d *deadLetters) Replay(ctx context.Context, l triggers.DeadLetter, tried time.Time) error {
	o, err := d.own(l)
	if err != nil {
		return err
	}
	to, err := d.openOrigin(ctx)
	if err != nil {
		return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, o.g.path(), err)
	}
	back := false
	if !tried.IsZero() {
		if back, err = o.g.isBack(ctx, o.token); err != nil {
			return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, o.g.path(), err)
		}
		if !back && time.Since(tried) > to.window-windowSlack {
			return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, o.g.path(), triggers.ErrDoubtful)
		}
	}
	m, err := o.g.take(ctx, o.sequence)
	if err != nil || m == nil {
		return err
	}
	if why := wire.Unfit(m); why != "" {
		return fmt.Errorf("replaying dead letter %s of %s: a copy of it would not be the same: %s", l.ID, o.g.path(), why)
	}
	if !back {
		sending, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
		defer cancel()
		if err := to.sender.SendAMQPAnnotatedMessage(sending, d.copyOf(m, o.token, to.keepsIDs), nil); err != nil {
			return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, o.g.path(), namespace.Explain(err, namespace.Send))
		}
	}
	return o.g.complete(ctx, m)
}

// copyOf is the message as it was, to be sent again.
func (d *deadLetters) copyOf(m *azservicebus.ReceivedMessage, token string, keepID bool) *azservicebus.AMQPAnnotatedMessage {
	out := convert.Copy(m)
	out.ApplicationProperties[convert.ReplayProperty] = token + "/" + d.run
	if !keepID {
		out.ApplicationProperties[convert.IDProperty] = out.Properties.MessageID
		out.Properties.MessageID = "drover-replay-" + token
	}
	return out
}

// isBack looks for a copy of a dead letter where it would be received.
func (g *grave) isBack(ctx context.Context, token string) (bool, error) {
	if g.d.cfg.Sessions {
		return false, nil // not that anybody could see
	}
	var r *azservicebus.Receiver
	var err error
	if cfg := g.d.cfg; cfg.Queue != "" {
		r, err = g.d.client.NewReceiverForQueue(cfg.Queue, nil)
	} else {
		r, err = g.d.client.NewReceiverForSubscription(cfg.Topic, g.subscription, nil)
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close(ctx) }() // it was only looked through
	next, page := int64(0), 0
	for looked := 0; looked < maxLook; {
		seen, err := namespace.PeekPage(ctx, r, next, namespace.MaxPeek, &page)
		if err != nil {
			return false, fmt.Errorf("looking for it in %s: %w", g.path(), namespace.Explain(err, namespace.Listen))
		}
		for _, m := range seen {
			if found, _ := replayOf(m.ApplicationProperties); found == token {
				return true, nil
			}
			next = convert.Deref(m.SequenceNumber) + 1
		}
		if looked += len(seen); len(seen) == 0 {
			break
		}
	}
	return false, nil
}
