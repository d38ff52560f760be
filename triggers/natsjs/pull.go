package natsjs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The flow: what is held here and what was asked for together follow the
// Receive that waits, plus the prefetch. nats.go's own Consume is not used, for two
// reasons. It fills a buffer whose messages nobody keeps alive. And each of its
// subscriptions calls back from a goroutine of its own, so that the messages of one request
// overtake those of another. Here all requests share one subscription: messages arrive in
// the order in which the server delivers them.

const (
	// heartbeat is the server's sign of life while a request waits; without two
	// of them in a row the requests are taken for lost, and made again. An embedded
	// server sends none.
	heartbeat = 2 * time.Second
	// maxAsked bounds the bytes that are asked for and have not come: a server ends a
	// connection on which more waits than its max_pending, 64 MiB by default.
	maxAsked = 32 << 20
)

// flow is the requests that the server has, and the subscription that their messages
// come through. All but the first three is guarded by trigger.mu.
type flow struct {
	inbox string
	sub   *nats.Subscription
	over  chan struct{} // closed when the last of its messages was handled

	asked       map[string]request // by the last token of the reply subject
	outstanding int                // asked for, and not arrived
	signs       uint64             // messages and statuses so far
	marked      uint64             // signs when silent last saw a new one
	markedAt    time.Time          // and when that was
}

type request struct {
	messages int
	expires  time.Time
}

// want is how many messages to ask for now; t.mu is held. They are counted as
// outstanding at once. It waits until half is used up, so that the requests are
// few.
func (t *trigger) want() int {
	target := t.prefetch + t.waiting
	have := t.held.len() + t.looking + t.outstanding()
	if t.ending || t.consumer == nil || t.strays != nil || have > target/2 || have >= target || !t.verified() {
		return 0
	}
	coming := t.outstanding()
	return t.cfg.Memory.Within(maxAsked, t.cfg.Memory.More(target-have, coming), coming)
}

// weighStep is how many bytes more or less are held before the account is told.
const weighStep = 64 << 10

// weigh has the account count what is held; t.mu is held.
func (t *trigger) weigh() {
	now, before := t.held.bytes, t.weighed
	if now-before < weighStep && before-now < weighStep && (now > 0 || before == 0) {
		return
	}
	t.weighed = now
	t.cfg.Memory.Hold(int64(now), t.held.largest)
	t.held.largest = 0
}

// outstanding is how many messages were asked for and have not arrived; t.mu is held.
func (t *trigger) outstanding() int {
	if t.flow == nil || t.flow.outstanding == 0 {
		return 0
	}
	return t.flow.outstanding
}

// pull asks for n messages; t.mu is held.
func (t *trigger) pull(n int) error {
	limits := t.consumer.CachedInfo().Config
	if limits.MaxRequestBatch > 0 {
		n = min(n, limits.MaxRequestBatch)
	}
	expiry := t.conn.idle()
	if limits.MaxRequestExpires > 0 {
		expiry = min(expiry, limits.MaxRequestExpires)
	}
	f, err := t.openFlow()
	if err == nil {
		t.requests++
		id := strconv.FormatUint(t.requests, 10)
		ask := fmt.Appendf(nil, `{"batch":%d,"expires":%d`, n, expiry.Nanoseconds())
		if expiry >= 2*heartbeat && !t.conn.embedded {
			ask = fmt.Appendf(ask, `,"idle_heartbeat":%d`, heartbeat.Nanoseconds())
		}
		if err = t.conn.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+t.cfg.Stream+"."+t.cfg.Consumer, f.inbox+"."+id, append(ask, '}')); err == nil {
			f.asked[id] = request{n, time.Now().Add(expiry)}
			f.outstanding += n
			f.signs++ // silence is counted from here
			return nil
		}
	}
	err = fmt.Errorf("asking consumer %s of stream %s for messages: %w", t.cfg.Consumer, t.cfg.Stream, err)
	t.fail(err)
	return err
}

// openFlow returns the flow, subscribed; t.mu is held.
func (t *trigger) openFlow() (*flow, error) {
	if t.flow != nil {
		return t.flow, nil
	}
	f := &flow{inbox: t.conn.nc.NewInbox(), over: make(chan struct{}), asked: make(map[string]request)}
	var err error
	if f.sub, err = t.conn.nc.Subscribe(f.inbox+".*", func(m *nats.Msg) { t.arrived(f, m) }); err != nil {
		return nil, err
	}
	// What may come is bounded by what is asked for.
	if err := f.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, errors.Join(err, f.sub.Unsubscribe())
	}
	f.sub.SetClosedHandler(func(string) { close(f.over) })
	t.flow = f
	return f, nil
}

// arrived is called by nats.go for each message, one at a time; it never waits.
func (t *trigger) arrived(f *flow, m *nats.Msg) {
	if strings.HasPrefix(m.Subject, f.inbox) {
		t.status(f, m)
		return
	}
	l, err := newLoan(t, m)
	if err != nil {
		t.log.Error("a message that is none of JetStream's; ignored", "subject", m.Subject, "error", err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stir()
	t.arrivals++
	f.signs++
	if f.outstanding--; f.outstanding <= 0 {
		f.outstanding = 0
		clear(f.asked)
	}
	t.admit(l)
}

// admit takes a message in; t.mu is held.
func (t *trigger) admit(l *loan) {
	if t.life == nil || l.delivery <= t.delivered || t.cfg.OrderingToken > 0 && t.doubtful() {
		// The consumer counts from 1 again: it is not the one that was looked up. Until
		// that is verified the message waits. Where order counts it also waits after an outage,
		// which may have lost messages that come before it.
		t.unsure = append(t.unsure, l)
		signal(t.nudge)
		return
	}
	t.delivered, t.highest = l.delivery, max(t.highest, l.Sequence)
	l.life = t.life
	again := l.deliveries > 1
	if again && t.known(l) {
		signal(t.wake) // one less is coming than was asked for
		return
	}
	t.alive.add(l, time.Unix(0, t.clock.Load()))
	// Where order counts, nothing overtakes a message that is being looked up.
	if again || t.looking > 0 && t.cfg.OrderingToken > 0 {
		before, here := t.looked, make(chan struct{})
		t.looked = here
		t.looking++
		t.running.Go(func() { t.lookUp(l, before, here) })
		return
	}
	t.hold(l)
}

// doubtful reports whether the connection was made again since the life was verified, or
// earlier messages wait for that; t.mu is held.
func (t *trigger) doubtful() bool {
	return len(t.unsure) > 0 || t.conn.nc.Stats().Reconnects != t.checked
}

// hold makes a loan ready to be handed out; t.mu is held.
func (t *trigger) hold(l *loan) {
	if t.strays != nil {
		t.strays.add(l)
		return
	}
	t.held.put(&l.Delivery)
	t.weigh()
	if t.waiting > 0 {
		signal(t.wake)
	}
}

// known reports whether a redelivered message is in hand already, or done; t.mu
// is held. That happens after the server was away: it lent again what it thought
// lost.
func (t *trigger) known(l *loan) bool {
	if until, sent := t.again[l.place()]; sent && time.Now().Before(until) {
		if err := t.conn.nc.Publish(l.msg.Reply, ack); err != nil {
			t.log.Warn("cannot acknowledge again", "message", l.message.ID, "error", err)
		}
		return true
	}
	return t.alive.has(l.place())
}

// lookUp finds how often a redelivered message has failed. Many are looked up at
// once; they are held in the order in which they arrived.
func (t *trigger) lookUp(l *loan, before <-chan struct{}, here chan<- struct{}) {
	defer close(here)
	failures := 0
	if l.deliveries > 1 {
		failures = t.ledger.get(t.ctx, l, t.log)
	}
	if before != nil {
		<-before
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l.recorded = failures
	l.message.Attempt = failures + 1
	t.looking--
	if l.life != t.life { // its stream was recreated meanwhile
		signal(t.wake)
		return
	}
	t.hold(l)
}

// pendingHeader counts what the server does not deliver any more of a request.
const pendingHeader = "Nats-Pending-Messages"

// status handles what the server says of a request.
func (t *trigger) status(f *flow, m *nats.Msg) {
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	t.mu.Lock()
	defer t.mu.Unlock()
	f.signs++
	if code == "100" || f != t.flow {
		return
	}
	if left, err := strconv.Atoi(m.Header.Get(pendingHeader)); err == nil {
		// The request has ended, mostly by its expiry.
		id := m.Subject[len(f.inbox)+1:]
		if _, known := f.asked[id]; known {
			delete(f.asked, id)
			f.outstanding = max(f.outstanding-left, 0)
			signal(t.wake)
		}
		return
	}
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "leadership change"), strings.Contains(lower, "server shutdown"), code == "503":
		// The consumer moves, or ends: care looks for it in a moment, and then more is asked for.
		t.forget()
		t.checked = unverified
		t.stir()
	case strings.Contains(lower, "consumer deleted"):
		t.fail(fmt.Errorf("consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, jetstream.ErrConsumerDeleted))
	default:
		t.fail(fmt.Errorf("consumer %s of stream %s refuses a request for messages: %s %s", t.cfg.Consumer, t.cfg.Stream, code, text))
	}
}

// fail has the next Receive report an error, and look the consumer up again; t.mu is held.
func (t *trigger) fail(err error) {
	t.forget()
	t.consumer = nil
	if t.failed == nil {
		t.failed = err
	}
	signal(t.wake)
}

// forget drops the requests: the server does not have them any more. t.mu is held.
func (t *trigger) forget() {
	if f := t.flow; f != nil {
		clear(f.asked)
		f.outstanding = 0
	}
}

// expire drops requests that the server has dropped, as far as their end was not
// reported. t.mu is held.
func (t *trigger) expire(now time.Time) {
	f := t.flow
	if f == nil || f.outstanding == 0 {
		return
	}
	left := 0
	for id, r := range f.asked {
		if now.After(r.expires.Add(2 * heartbeat)) {
			delete(f.asked, id)
			continue
		}
		left += r.messages
	}
	if f.outstanding > left {
		f.outstanding = left
		signal(t.wake)
	}
}

// silent reports whether nothing was heard of the requests for two heartbeats; t.mu is
// held.
func (t *trigger) silent(now time.Time) bool {
	f := t.flow
	if f == nil || f.outstanding == 0 {
		return false
	}
	if f.marked != f.signs+1 {
		f.marked, f.markedAt = f.signs+1, now
	}
	return now.Sub(f.markedAt) >= 2*heartbeat
}

// askAgain gives up requests of which the server may know nothing: others take their place.
// Where order counts the subscription stays. Messages of two subscriptions overtake each other,
// and so do those that the server cannot deliver because a subscription has ended.
func (t *trigger) askAgain() {
	if t.cfg.OrderingToken == 0 {
		t.end(0)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	signal(t.wake)
}

// endLimit bounds the wait for what is on its way when requests are taken back.
const endLimit = time.Second

// end takes the requests back, and waits for what was on its way: that is held. A
// message that is given back afterwards does not come here again.
func (t *trigger) end(atMost time.Duration) {
	t.mu.Lock()
	f := t.flow
	t.flow = nil
	t.mu.Unlock()
	if f == nil {
		return
	}
	if err := f.sub.Drain(); err != nil {
		return // the connection is closed
	}
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	select {
	case <-f.over:
	case <-limit.C: // the server is away, and so are the requests
	}
}

// quiet is for how long nothing may come before requests are taken back: what is on its
// way then finds nobody, and the server lends it again only after AckWait. It is waited
// for that long at most longestQuiet.
const (
	quiet        = 50 * time.Millisecond
	longestQuiet = time.Second
)

// askLess takes requests back when nobody waits any more for what they asked. Where order
// counts they stay, and what comes is held for the next Receive: a message that finds nobody
// would come again behind later ones of its key.
func (t *trigger) askLess() {
	if t.cfg.OrderingToken > 0 {
		return
	}
	for end := time.Now().Add(longestQuiet); ; {
		t.mu.Lock()
		tooMany, came := t.outstanding() > t.prefetch, t.arrivals
		t.mu.Unlock()
		if !tooMany {
			return
		}
		wait := time.NewTimer(quiet)
		select {
		case <-wait.C:
		case <-t.ctx.Done():
			wait.Stop()
			return
		}
		t.mu.Lock()
		calm := t.arrivals == came
		t.mu.Unlock()
		if calm || time.Now().After(end) {
			t.end(endLimit)
			return
		}
	}
}
