// Package natsjs is the trigger for NATS JetStream: durable pull consumers of a cluster, or of a
// server embedded in this process.
//
// A Connection is opened once, and outlives its triggers. Open returns a trigger; see package
// triggers for who calls what.
package natsjs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// PrefetchAuto prefetches as many messages as are settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// Config is one durable pull consumer.
type Config struct {
	Stream   string
	Subject  string // the consumer's filter; empty: any filter
	Consumer string
	// Create creates the stream, the consumer and the dead-letter stream if they are
	// missing. Existing ones are used unchanged.
	Create  bool
	AckWait time.Duration
	// OrderingToken is the position, counted from 1, of the subject's token that is the ordering
	// key; 0 disables the order.
	OrderingToken int
	// DeadLetters is the stream for rejected messages.
	DeadLetters string
	// MaxAttempts is only checked against the consumer's MaxDeliver.
	MaxAttempts int
	// Prefetch is how many messages are leased beyond those that a Receive requests, or
	// PrefetchAuto.
	Prefetch int
	// Function is the function's name in dead letters that were not caused by its verdict.
	Function string
	// Memory bounds the prefetched bytes; nil is no bound.
	Memory *triggers.Account
	Log    *slog.Logger
}

// Open returns a trigger on a consumer, after checking the consumer's settings. The caller
// owns the connection, and closes it after the trigger.
func Open(ctx context.Context, c *Connection, cfg Config) (triggers.Trigger, error) {
	t := &trigger{
		conn:        c,
		cfg:         cfg,
		log:         cfg.Log.With("stream", cfg.Stream, "consumer", cfg.Consumer),
		ledger:      newLedger(c.js, cfg),
		wakeReceive: make(chan struct{}, 1),
		wakeUp:      make(chan struct{}, 1),

		idleEnded: make(chan struct{}, 1),
	}
	t.ledger.troubles = &t.troubles
	t.leases.init()
	t.acks = acks{t: t, wake: make(chan struct{}, 1)}
	cfg.Memory.OnFreed(func() { signal(t.wakeReceive) })
	if t.prefetch = cfg.Prefetch; cfg.Prefetch == PrefetchAuto {
		t.prefetch = 0
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	opening, opened := c.untilDenied(ctx)
	defer opened()
	if err := t.attach(opening); err != nil {
		err = whyDenied(opening, err)
		t.stop()
		return nil, err
	}
	t.running.Go(func() { t.keepLeases(t.ctx) })
	t.running.Go(func() { t.acks.run(t.ctx) })
	if !cfg.Create { // otherwise it is created when it is needed
		t.checkGraveyard(ctx)
		t.running.Go(func() { t.watchGraveyard(t.ctx) })
	}
	if !c.embedded { // its account has all rights, and it is a single server
		t.running.Go(func() {
			t.checkRights(t.ctx)
			t.raiseGraveyard(t.ctx)
			t.raiseLedger(t.ctx)
		})
	}
	c.mu.Lock()
	c.reconnected[t] = struct{}{}
	c.mu.Unlock()
	if cfg.OrderingToken > 0 {
		return triggers.Ordered(t), nil
	}
	return t, nil
}

type trigger struct {
	conn   *Connection
	cfg    Config
	log    *slog.Logger
	ledger *ledger

	ctx         context.Context // ends with the trigger
	stop        context.CancelFunc
	running     sync.WaitGroup // the keeper, and lookups in the ledger
	wakeReceive chan struct{}  // wakes Receive
	wakeUp      chan struct{}  // wakes the keeper to verify the life
	idleEnded   chan struct{}  // wakes the keeper from idle mode
	idle        atomic.Bool    // the keeper has nothing to do
	troubles    triggers.Troubles

	// The time of the keeper's last check. It is precise enough for the time of the next renewal,
	// and cheaper than reading the clock for each message.
	clock atomic.Int64
	// ackWait is the current setting of the consumer, in ns.
	ackWait atomic.Int64

	mu         sync.Mutex
	consumer   jetstream.Consumer // nil if it must be looked up again
	failed     error              // for the next Receive
	closed     bool
	ending     bool // no more messages are requested
	maxDeliver int  // the current setting of the consumer

	life      *life            // nil before it is known
	checked   uint64           // the number of reconnects when life was verified
	checkedAt time.Time        // the time of that verification
	delivered uint64           // the number of the consumer's last delivery
	highest   uint64           // the highest sequence received
	unsure    []*leasedMessage // arrived, but possibly of another life
	later     []repeat         // settlements to send when the life is verified
	strays    *strays          // nil unless some are missing

	watching sync.Once      // watchSpent
	given    map[place]bool // messages dead-lettered because the server had given them up

	prefetched queue           // leased, and not yet returned by Receive
	weighed    int             // the bytes last reported to the account
	looking    int             // arrived, and being looked up in the ledger
	looked     <-chan struct{} // closed when the last lookup has finished
	arrivals   uint64          // so far
	flow       *flow           // nil before the first request
	requests   uint64          // so far
	waiting    int             // messages that a blocked Receive requests
	prefetch   int
	settled    int64     // all settlements so far
	last       repeat    // the last settlement
	marked     time.Time // the time of the last rateOver settlements

	leases leaseList // all unsettled leases
	acks   acks
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
			t.failed, t.waiting = nil, 0
			t.mu.Unlock()
			return nil, err
		}
		if t.consumer == nil && ctx.Err() == nil {
			t.mu.Unlock()
			if err := t.attach(ctx); err != nil {
				return nil, err
			}
			continue
		}
		out := t.prefetched.take(max)
		t.weigh()
		err := ctx.Err()
		t.waiting = max
		if len(out) > 0 || err != nil {
			t.waiting = 0
		}
		if err == nil {
			if n := t.toRequest(); n > 0 {
				_ = t.pull(n) // an error is reported in the next iteration
			}
		}
		t.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		if err != nil {
			t.withdrawRequests()
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
	defer t.expect(0)
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	for {
		t.expect(max)
		t.mu.Lock()
		out, coming := t.prefetched.take(max), t.looking+t.outstanding()
		t.weigh()
		t.mu.Unlock()
		if len(out) > 0 || coming == 0 {
			return out, nil
		}
		calm := time.NewTimer(quiet)
		select {
		case <-t.wakeReceive:
		case <-calm.C:
			t.end(t.endLimit())
		case <-ctx.Done():
			calm.Stop()
			return nil, ctx.Err()
		}
		calm.Stop()
	}
}

// expect makes arriving messages wake a caller that waits for n of them.
func (t *trigger) expect(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = n
}

// endLimit bounds the wait for the end of requests.
func (t *trigger) endLimit() time.Duration {
	if t.conn.nc.IsConnected() { // wait longer: messages that arrive later would not be released
		return flushLimit
	}
	return endLimit
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Link implements triggers.Linked.
func (t *trigger) Link() (triggers.Link, bool) { return t.conn.link(), true }

// Backlog implements triggers.Trigger. Ready are the messages that the consumer has not
// delivered, and those prefetched here. Messages that wait for a retry are unsettled: the
// server delivers them on request, and does not report when they are due.
func (t *trigger) Backlog(ctx context.Context) (triggers.Backlog, error) {
	t.mu.Lock()
	consumer, held := t.consumer, int64(t.prefetched.len())
	t.mu.Unlock()
	if consumer == nil {
		return triggers.Backlog{}, fmt.Errorf("consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, triggers.ErrUnknown)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return triggers.Backlog{}, fmt.Errorf("reading the backlog of consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, err)
	}
	b := triggers.Backlog{Ready: int64(info.NumPending) + held, Unsettled: max(int64(info.NumAckPending)-held, 0)}
	if info.NumPending > 0 && len(info.Config.FilterSubjects) == 0 {
		b.Oldest = t.oldest(ctx, info)
	}
	return b, nil
}

// oldest returns when the first undelivered message was enqueued; zero if that cannot be read.
func (t *trigger) oldest(ctx context.Context, info *jetstream.ConsumerInfo) time.Time {
	stream, err := t.conn.js.Stream(ctx, t.cfg.Stream)
	if err != nil {
		return time.Time{}
	}
	filter := info.Config.FilterSubject
	if filter == "" {
		filter = ">"
	}
	m, err := stream.GetMsg(ctx, info.Delivered.Stream+1, jetstream.WithGetMsgSubject(filter))
	if err != nil {
		return time.Time{}
	}
	return m.Time
}

// Close implements triggers.Trigger. It releases prefetched messages at once.
func (t *trigger) Close(ctx context.Context) error {
	t.conn.mu.Lock()
	delete(t.conn.reconnected, t)
	t.conn.mu.Unlock()

	t.mu.Lock()
	t.closed, t.ending = true, true
	t.waiting, t.prefetch = 0, 0
	t.mu.Unlock()
	t.end(t.endLimit())
	t.stop()
	t.running.Wait()

	t.mu.Lock()
	held := t.prefetched.take(t.prefetched.len())
	t.weigh()
	t.mu.Unlock()
	var errs []error
	for _, d := range held {
		errs = append(errs, d.Settle(ctx, triggers.Verdict{Kind: triggers.Release}))
	}
	t.acks.sendUnsent(false)
	errs = append(errs, t.confirmSettled(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, err)
	}
	return nil
}

// confirmSettled waits until the server has carried out the settlements. The server queues
// them, and loses the queue when it stops. So the last one is repeated, which has no effect, and
// the server responds when it has processed it.
func (t *trigger) confirmSettled(ctx context.Context) error {
	if !t.conn.nc.IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	t.mu.Lock()
	last, sure := t.last, t.verified()
	t.mu.Unlock()
	if err := t.conn.nc.FlushWithContext(ctx); err != nil || last.reply == "" || !sure {
		return err
	}
	if _, err := t.conn.nc.RequestWithContext(ctx, last.reply, last.said); err != nil && !errors.Is(err, nats.ErrNoResponders) {
		// The server has received all settlements. Only if it stops now, some may be lost.
		t.log.Debug("the server did not confirm the last settlements", "error", err)
	}
	return nil
}
