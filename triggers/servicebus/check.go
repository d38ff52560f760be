package servicebus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// An entity is checked at the start, and its backlog is measured later.

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
		e.roundTrip = time.Since(began)
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
	e.admin = &inspector{e.address, client, done}
	asking, cancel := context.WithTimeout(ctx, namespace.AdminLimit)
	defer cancel()
	p, err := e.admin.properties(asking)
	if err == nil && p == nil && cfg.Create {
		if err = e.admin.create(asking, cfg); err == nil {
			p, err = e.admin.properties(asking)
		}
	}
	switch {
	case err != nil && cfg.Create:
		return fmt.Errorf("creating %s: %w; create: true needs the right %s (%s), and access to the admin API", e.path(), err, namespace.Manage.Claim, namespace.Manage.Role)
	case err != nil:
		e.t.log.Info("no Manage right, or no access to the admin API: the backlog is estimated from the next messages, and MaxDeliveryCount is not compared with max_attempts", "path", e.path())
		e.t.log.Debug("the admin API", "error", err)
		done()
		e.admin = nil
		return nil
	case p == nil:
		return fmt.Errorf("%s does not exist; check the name; create: true creates it", e.path())
	}
	e.lock, e.most = p.lock, p.maxDeliveries
	return p.fit(cfg, e.path())
}

// sessionCheck bounds the wait for a session at the start.
const sessionCheck = time.Second

// checkSessions accepts a session and closes it at once.
func (e *entity) checkSessions(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, sessionCheck)
	defer cancel()
	r, err := e.acceptNext(waiting, e.current.Load().client)
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
		return e.countBacklog(ctx)
	}
	if e.t.cfg.Sessions {
		return triggers.Backlog{}, fmt.Errorf("%s: with sessions it takes the right %s: %w", e.path(), namespace.Manage.Claim, triggers.ErrUnknown)
	}
	return e.peek(ctx, namespace.MaxPeek)
}

// countBacklog returns the counts of the admin API, without the messages that are locked here.
func (e *entity) countBacklog(ctx context.Context) (triggers.Backlog, error) {
	active, dead, scheduled, err := e.admin.counts(ctx)
	if err != nil {
		return triggers.Backlog{}, err
	}
	b := triggers.Backlog{Ready: max(active-e.leased(), 0), More: &triggers.BacklogMore{Dead: dead, Scheduled: scheduled}}
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
	n = e.t.inTransit.Load() + int64(e.sessions.messages)
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
	seen, err := namespace.PeekPage(ctx, e.current.Load().receiver, 0, n, &asked)
	if namespace.TooLarge(err) { // only the next message is too large; others are still received
		e.t.log.Warn("the next message cannot be peeked", "path", e.path(), "error", err)
		return triggers.Backlog{Ready: 1, AtLeast: true}, nil
	}
	if err != nil {
		return b, fmt.Errorf("peeking messages of %s: %w", e.path(), namespace.Explain(err, namespace.Listen))
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
