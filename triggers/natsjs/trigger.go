// Package natsjs is the trigger for NATS JetStream: durable pull consumers of a cluster, or of a
// server embedded in this process.
//
// A client.Connection is opened once, and outlives its triggers. Open returns a trigger; see package
// triggers for who calls what. A trigger is composed of parts, each in a file of its name. They share
// the binding and its lock:
//
//   - binding: the consumer, and the life of it and its stream
//   - requests, intake, prefetch, strays: from a request to a message that Receive returns
//   - settler, acks: from a verdict to the server's confirmation
//   - keeper: looks the consumer up, renews leases, and verifies the life
//   - spent: dead-letters messages that the server has given up
package natsjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/natsjs/deadletters"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// trigger composes the parts. It implements triggers.Trigger and its optional interfaces.
type trigger struct {
	*binding
	stop        context.CancelFunc
	unsubscribe func() // from the connection's reconnects
	closed      bool   // guarded by mu
	troubles    *triggers.Troubles
	prefetch    *prefetch
	settler     *settler
	intake      *intake
	keeper      *keeper
}

// Open returns a trigger on a consumer, after checking the consumer's settings. The caller
// owns the connection, and closes it after the trigger.
func Open(ctx context.Context, c *client.Connection, cfg Config) (triggers.Trigger, error) {
	t := newTrigger(c, cfg)
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	if cfg.OrderingToken > 0 {
		return triggers.OrderedTogether(t, cfg.Together), nil
	}
	return t, nil
}

func newTrigger(c *client.Connection, cfg Config) *trigger {
	b := &binding{
		conn: c, cfg: cfg, log: cfg.Log.With("stream", cfg.Stream, "consumer", cfg.Consumer),
		wakeReceive: make(chan struct{}, 1), wakeKeeper: make(chan struct{}, 1), idling: idling{idleEnded: make(chan struct{}, 1)},
	}
	t := &trigger{binding: b, troubles: new(triggers.Troubles), prefetch: newPrefetch(cfg.Prefetch, cfg.Memory)}
	b.ctx, t.stop = context.WithCancel(context.Background())
	t.settler = &settler{
		binding: b, prefetch: t.prefetch, acks: newAcks(b),
		ledger: ledger.New(c, cfg.Stream, cfg.Consumer, t.troubles, b.log),
		graveyard: &deadletters.Graveyard{
			Conn: c, Stream: cfg.Stream, Subject: cfg.Subject, DeadLetters: cfg.DeadLetters, Create: cfg.Create, AckWait: cfg.AckWait,
			Troubles: t.troubles, Log: b.log,
		},
	}
	t.settler.leases.init()
	t.intake = newIntake(t.settler)
	t.keeper = &keeper{binding: b, intake: t.intake, settler: t.settler, spent: &spentWatch{binding: b, settler: t.settler}}
	cfg.Memory.OnFreed(func() { signal(b.wakeReceive) })
	return t
}

// start looks the consumer up, and starts the goroutines.
func (t *trigger) start(ctx context.Context) error {
	opening, opened := t.conn.UntilDenied(ctx)
	defer opened()
	if err := t.keeper.attach(opening); err != nil {
		t.stop()
		return client.WhyDenied(opening, err)
	}
	t.settler.releaseLeft()
	t.running.Go(func() { t.keeper.run(t.ctx) })
	t.running.Go(func() { t.settler.acks.sendLoop(t.ctx) })
	graveyard := t.settler.graveyard
	if !t.cfg.Create { // otherwise it is created when it is needed
		graveyard.Check(ctx)
		t.running.Go(func() { graveyard.Watch(t.ctx) })
	}
	if !t.conn.IsEmbedded() { // its account has all rights, and it is a single server
		t.running.Go(func() {
			checkRights(t.ctx, t.binding, t.settler.ledger)
			graveyard.RaiseReplicas(t.ctx)
			t.settler.ledger.RaiseReplicas(t.ctx)
		})
	}
	t.unsubscribe = t.conn.OnReconnect(func() { signal(t.wakeKeeper) })
	return nil
}

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, errClosed
		}
		if err := t.failed; err != nil {
			t.failed, t.intake.waiting = nil, 0
			t.mu.Unlock()
			return nil, err
		}
		if t.consumer == nil && ctx.Err() == nil {
			t.mu.Unlock()
			if err := t.keeper.attach(ctx); err != nil {
				return nil, err
			}
			continue
		}
		out := t.prefetch.take(max)
		err := ctx.Err()
		t.intake.waiting = max
		if len(out) > 0 || err != nil {
			t.intake.waiting = 0
		}
		asked := false
		if err == nil {
			asked = t.intake.requestMore() // an error is reported in the next iteration
		}
		t.mu.Unlock()
		if asked {
			t.settler.acks.sendAlong()
		}
		if len(out) > 0 {
			return out, nil
		}
		if err != nil {
			t.intake.withdrawWhenQuiet()
			return nil, err
		}
		select {
		case <-t.wakeReceive:
		case <-ctx.Done():
		}
	}
}

var errClosed = errors.New("the NATS trigger is closed")

// Drain implements triggers.Drainer. It waits for requested messages while they arrive.
func (t *trigger) Drain(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	defer t.intake.expect(0)
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	for {
		t.intake.expect(max)
		t.mu.Lock()
		out, coming := t.prefetch.take(max), t.intake.coming()
		t.mu.Unlock()
		if len(out) > 0 || coming == 0 {
			return out, nil
		}
		calm := time.NewTimer(quiet)
		select {
		case <-t.wakeReceive:
		case <-calm.C:
			t.intake.withdrawAll()
		case <-ctx.Done():
			calm.Stop()
			return nil, ctx.Err()
		}
		calm.Stop()
	}
}

// Link implements triggers.Linked.
func (t *trigger) Link() (triggers.Link, bool) { return t.conn.Link(), true }

// Backlog implements triggers.Trigger. Ready are the messages that the consumer has not
// delivered, and those prefetched here. Messages that wait for a retry are unsettled: the
// server delivers them on request, and does not report when they are due.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	t.mu.Lock()
	consumer, held := t.consumer, int64(t.prefetch.len())
	t.mu.Unlock()
	if consumer == nil {
		return triggers.Backlog{}, fmt.Errorf("%s: %w", t.cfg, triggers.ErrUnknown)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return triggers.Backlog{}, fmt.Errorf("reading the backlog of %s: %w", t.cfg, err)
	}
	b := triggers.Backlog{Ready: int64(info.NumPending) + held, Unsettled: max(int64(info.NumAckPending)-held, 0)}
	if info.NumPending > 0 && len(info.Config.FilterSubjects) == 0 {
		b.Oldest = consumers.Oldest(ctx, t.conn.JetStream(), info)
	}
	return b, nil
}

// Find implements triggers.Finder.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	t.mu.Lock()
	consumer := t.consumer
	for l := range t.settler.leases.all() {
		if l.message.ID == id {
			t.mu.Unlock()
			return triggers.Found{Place: triggers.PlaceHeld, Ahead: -1, Failures: l.message.Attempt - 1, Enqueued: l.message.Enqueued}, nil
		}
	}
	t.mu.Unlock()
	if consumer == nil {
		return triggers.Found{}, fmt.Errorf("%s is gone: %w", t.cfg, triggers.ErrUnsearchable)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return triggers.Found{}, fmt.Errorf("asking for %s: %w", t.cfg, err)
	}
	found, sequence, err := consumers.Find(ctx, t.conn.JetStream(), info, id)
	if err != nil {
		return triggers.Found{}, err
	}
	found.Failures = t.settler.ledger.Find(ctx, ledger.Message{Sequence: sequence, Enqueued: found.Enqueued, Created: info.Created})
	if info.Config.MaxDeliver > 0 {
		found.Note = spentNote(t.cfg.Consumer, info.Config.MaxDeliver)
	}
	return found, nil
}

// Notes implements triggers.Noter.
func (t *trigger) Notes() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.maxDeliver <= 0 {
		return nil
	}
	return []string{spentNote(t.cfg.Consumer, t.maxDeliver)}
}

// Troubles implements triggers.Troubled.
func (t *trigger) Troubles() []triggers.Trouble { return append(t.troubles.All(), t.conn.Denials()...) }

// Close implements triggers.Trigger. It releases prefetched messages at once.
func (t *trigger) Close(ctx context.Context) error {
	t.unsubscribe()
	t.mu.Lock()
	t.closed, t.ending = true, true
	t.intake.waiting = 0
	t.prefetch.stop()
	t.mu.Unlock()
	t.intake.withdrawAll()
	t.stop()
	t.running.Wait()

	t.mu.Lock()
	held := t.prefetch.take(t.prefetch.len())
	t.mu.Unlock()
	var errs []error
	for _, d := range held {
		errs = append(errs, d.Settle(ctx, triggers.Verdict{Kind: triggers.Release}))
	}
	t.settler.acks.sendUnsent(false)
	errs = append(errs, t.confirmSettled(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing %s: %w", t.cfg, err)
	}
	return nil
}

// confirmSettled waits until the server has carried out the settlements. The server queues
// them, and loses the queue when it stops. So the last one is repeated, which has no effect, and
// the server responds when it has processed it.
func (t *trigger) confirmSettled(ctx context.Context) error {
	if !t.conn.Conn().IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	t.mu.Lock()
	last, sure := t.settler.last, t.isVerified()
	t.mu.Unlock()
	if err := t.conn.Conn().FlushWithContext(ctx); err != nil || last.reply == "" || !sure {
		return err
	}
	if _, err := t.conn.Conn().RequestWithContext(ctx, last.reply, last.said); err != nil && !errors.Is(err, nats.ErrNoResponders) {
		// The server has received all settlements. Only if it stops now, some may be lost.
		t.log.Debug("the server did not confirm the last settlements", "error", err)
	}
	return nil
}
