package servicebus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// inspector queries the admin API, which requires the right Manage.
type inspector struct {
	client *admin.Client
	done   func()
}

// properties are the properties of an entity that are checked.
type properties struct {
	sessions, duplicates bool
	maxDeliveries        int
	status               admin.EntityStatus
	lock                 time.Duration
}

// check checks, before anything is received, that the entity exists, matches the
// configuration, and can be read.
func (e *entity) check(ctx context.Context) error {
	if err := e.inspect(ctx); err != nil {
		return err
	}
	switch {
	case !e.t.cfg.Sessions:
		if _, err := e.peek(ctx, 1); err != nil {
			return err
		}
		began := time.Now() // the links are open now, so this measures a round trip
		_, err := e.peek(ctx, 1)
		e.fastest = time.Since(began)
		return err
	case e.admin != nil:
		return nil // Manage includes Listen, and checking sessions takes a second
	}
	return e.checkSessions(ctx)
}

// inspect queries the admin API if the account may use it.
func (e *entity) inspect(ctx context.Context) error {
	cfg := e.t.cfg
	client, done, err := cfg.Access.Admin()
	if err != nil {
		return fmt.Errorf("asking for %s: %w", e.path(), err)
	}
	e.admin = &inspector{client, done}
	asking, cancel := context.WithTimeout(ctx, namespace.AdminLimit)
	defer cancel()
	p, err := e.properties(asking)
	if err == nil && p == nil && cfg.Create {
		if err = e.create(asking); err == nil {
			p, err = e.properties(asking)
		}
	}
	switch {
	case err != nil && cfg.Create:
		return fmt.Errorf("making %s: %w; create: true needs the right %s (%s), and a way to the admin API", e.path(), err, namespace.Manage.Claim, namespace.Manage.Role)
	case err != nil:
		e.t.log.Info("no right Manage, or no way to the admin API: the backlog is a look at the next messages, and MaxDeliveryCount is not compared with max_attempts", "path", e.path())
		e.t.log.Debug("the admin API", "error", err)
		done()
		e.admin = nil
		return nil
	case p == nil:
		return fmt.Errorf("%s is not there; is the name right, and is it made? create: true makes it", e.path())
	}
	e.lock = p.lock
	return e.fits(p)
}

// fits compares an entity with the configuration.
func (e *entity) fits(p *properties) error {
	cfg := e.t.cfg
	switch {
	case p.status == admin.EntityStatusDisabled || p.status == admin.EntityStatusReceiveDisabled:
		return fmt.Errorf("%s is switched off for receiving (%s); set its status to Active", e.path(), p.status)
	case p.sessions && !cfg.Sessions:
		return fmt.Errorf("%s requires sessions; set sessions: true", e.path())
	case !p.sessions && cfg.Sessions:
		return fmt.Errorf("%s has no sessions; leave sessions out, or make it anew with sessions", e.path())
	case cfg.Scheduled && p.duplicates:
		return fmt.Errorf("%s detects duplicates, and would drop the copy of a message that is to be tried again; set retry.mode: hold", e.path())
	case cfg.MaxAttempts > 0 && p.maxDeliveries <= cfg.MaxAttempts && !cfg.Scheduled:
		return fmt.Errorf("the MaxDeliveryCount of %s is %d: it counts releases and lost locks too, and must be more than max_attempts (%d), or messages are dead letters too early; raise it, or lower max_attempts",
			e.path(), p.maxDeliveries, cfg.MaxAttempts)
	}
	return nil
}

// properties returns the properties of the entity; nil if it does not exist.
func (e *entity) properties(ctx context.Context) (*properties, error) {
	c := e.admin.client
	if e.queue != "" {
		r, err := c.GetQueue(ctx, e.queue, nil)
		if err != nil || r == nil {
			return nil, err
		}
		return &properties{is(r.RequiresSession), is(r.RequiresDuplicateDetection), number(r.MaxDeliveryCount), status(r.Status), namespace.LockTime(r.LockDuration)}, nil
	}
	r, err := c.GetSubscription(ctx, e.topic, e.subscription, nil)
	if missing(err) || err == nil && r == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &properties{is(r.RequiresSession), false, number(r.MaxDeliveryCount), status(r.Status), namespace.LockTime(r.LockDuration)}, nil
}

func is(b *bool) bool { return b != nil && *b }

func number(n *int32) int {
	if n == nil {
		return 10 // the service's own default
	}
	return int(*n)
}

func status(s *admin.EntityStatus) admin.EntityStatus {
	if s == nil {
		return admin.EntityStatusActive
	}
	return *s
}

func missing(err error) bool { return hasStatus(err, http.StatusNotFound) }

func hasStatus(err error, code int) bool {
	var r *azcore.ResponseError
	return errors.As(err, &r) && r.StatusCode == code
}

// create creates the entity and its topic. Existing ones are not an error.
func (e *entity) create(ctx context.Context) error {
	c, sessions := e.admin.client, e.t.cfg.Sessions
	deliveries := int32(max(10, 2*e.t.cfg.MaxAttempts))
	exists := func(err error) error {
		if hasStatus(err, http.StatusConflict) {
			return nil
		}
		return err
	}
	if e.queue != "" {
		_, err := c.CreateQueue(ctx, e.queue, &admin.CreateQueueOptions{Properties: &admin.QueueProperties{RequiresSession: &sessions, MaxDeliveryCount: &deliveries}})
		return exists(err)
	}
	if _, err := c.CreateTopic(ctx, e.topic, nil); exists(err) != nil {
		return err
	}
	_, err := c.CreateSubscription(ctx, e.topic, e.subscription, &admin.CreateSubscriptionOptions{Properties: &admin.SubscriptionProperties{RequiresSession: &sessions, MaxDeliveryCount: &deliveries}})
	return exists(err)
}

// sessionCheck bounds the wait for a session at the start.
const sessionCheck = time.Second

// checkSessions accepts a session and closes it at once.
func (e *entity) checkSessions(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, sessionCheck)
	defer cancel()
	r, err := e.acceptNext(waiting, e.link.Load().client)
	var coded *azservicebus.Error
	switch {
	case err == nil:
		return r.Close(ctx)
	case errors.As(err, &coded) && coded.Code == azservicebus.CodeTimeout:
		return nil
	}
	return fmt.Errorf("accepting a session of %s: %w", e.path(), namespace.Explain(err, namespace.Listen))
}

// backlog returns the counts of the admin API. Without the right Manage it peeks at the next
// messages instead.
func (e *entity) backlog(ctx context.Context) (triggers.Backlog, error) {
	if e.admin != nil {
		ctx, cancel := context.WithTimeout(ctx, namespace.AdminLimit)
		defer cancel()
		return e.counts(ctx)
	}
	if e.t.cfg.Sessions {
		return triggers.Backlog{}, fmt.Errorf("%s: with sessions it takes the right %s: %w", e.path(), namespace.Manage.Claim, triggers.ErrUnknown)
	}
	return e.peek(ctx, namespace.MaxPeek)
}

// counts returns the counts of the admin API. Its active messages include locked ones.
func (e *entity) counts(ctx context.Context) (triggers.Backlog, error) {
	var active, dead, scheduled int32
	if e.queue != "" {
		r, err := e.admin.client.GetQueueRuntimeProperties(ctx, e.queue, nil)
		if err != nil || r == nil {
			return triggers.Backlog{}, fmt.Errorf("counting the messages of %s: %w", e.path(), namespace.OrMissing(err))
		}
		active, dead, scheduled = r.ActiveMessageCount, r.DeadLetterMessageCount, r.ScheduledMessageCount
	} else {
		r, err := e.admin.client.GetSubscriptionRuntimeProperties(ctx, e.topic, e.subscription, nil)
		if err != nil || r == nil {
			return triggers.Backlog{}, fmt.Errorf("counting the messages of %s: %w", e.path(), namespace.OrMissing(err))
		}
		active, dead = r.ActiveMessageCount, r.DeadLetterMessageCount
	}
	b := triggers.Backlog{Ready: max(int64(active)-e.leased(), 0), More: &triggers.BacklogMore{Dead: int64(dead), Scheduled: int64(scheduled)}}
	if b.Ready > 0 && !e.t.cfg.Sessions {
		next, err := e.peek(ctx, namespace.MaxPeek)
		if err != nil {
			return triggers.Backlog{}, err
		}
		b.Oldest = next.Oldest
	}
	return b, nil
}

// leased returns the number of the entity's messages that are locked here.
func (e *entity) leased() (n int64) {
	e.t.mu.Lock()
	defer e.t.mu.Unlock()
	n = e.t.inTransit.Load() + int64(e.inSessions)
	for l := range e.t.keeper.All() {
		if l.e == e {
			n++
		}
	}
	return n
}

// peek counts the next messages, up to n. If it reaches n, the count is a lower bound.
func (e *entity) peek(ctx context.Context, n int) (b triggers.Backlog, err error) {
	asked := n
	seen, err := namespace.PeekPage(ctx, e.link.Load().receiver, 0, n, &asked)
	if namespace.TooLarge(err) { // only the next message is too large; others are still received
		e.t.log.Warn("the next message cannot be peeked", "path", e.path(), "error", err)
		return triggers.Backlog{Ready: 1, AtLeast: true}, nil
	}
	if err != nil {
		return b, fmt.Errorf("looking at the messages of %s: %w", e.path(), namespace.Explain(err, namespace.Listen))
	}
	e.t.mu.Lock()
	here := make(map[int64]bool, e.t.keeper.Len())
	for l := range e.t.keeper.All() {
		if l.e == e {
			here[l.number()] = true
		}
	}
	e.t.mu.Unlock()
	for _, m := range seen {
		if m.State != azservicebus.MessageStateActive || m.SequenceNumber != nil && here[*m.SequenceNumber] {
			continue
		}
		b.Ready++
		if b.Oldest.IsZero() && m.EnqueuedTime != nil {
			b.Oldest = *m.EnqueuedTime
		}
	}
	b.AtLeast = len(seen) >= asked
	return b, nil
}
