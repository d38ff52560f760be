package deadletters

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
	"github.com/drover-run/drover/triggers/servicebus/wire"
)

func (d *deadLetters) own(l triggers.DeadLetter) (own, error) {
	o, ok := l.Own.(own)
	if !ok || !slices.Contains(d.graves, o.g) {
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

// origin is the queue or topic to which dead letters are replayed.
type origin struct {
	sender *azservicebus.Sender
	// keepsIDs is set if a copy can have the ID of its original. With duplicate detection, or if
	// that is unknown, the service could drop such a copy.
	keepsIDs bool
	window   time.Duration // the window of duplicate detection; 0 is none, or unknown
}

// openOrigin checks the queue or topic, and opens a sender for it.
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

// inspect queries the admin API, which requires the right Manage.
func (o *origin) inspect(ctx context.Context, cfg Config) (subscriptions int, err error) {
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
	o.keepsIDs = !convert.Deref(duplicates)
	if convert.Deref(duplicates) {
		o.window = namespace.LockTime(window) // a lower bound if it is written in days
	}
	return subscriptions, nil
}

// Replay implements triggers.DeadLetters. It locks the dead letter, sends a copy, and completes
// the dead letter when the service has accepted the copy.
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
		if err := to.sender.SendAMQPAnnotatedMessage(sending, convert.ReplayCopy(m, o.token, d.run, to.keepsIDs), nil); err != nil {
			return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, o.g.path(), namespace.Explain(err, namespace.Send))
		}
	}
	return o.g.complete(ctx, m)
}
