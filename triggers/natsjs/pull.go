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

// The flow: prefetched and requested messages together match the messages that a blocked
// Receive requests, plus the prefetch. nats.go's own Consume is not used, for two reasons. It
// does not renew the leases in its buffer. And each of its subscriptions calls back from a
// goroutine of its own, so that messages of one request overtake those of another. Here all
// requests share one subscription: messages arrive in the order in which the server delivers
// them.

const (
	// heartbeat is the interval of the server's heartbeats while a request waits. If two in
	// a row are missing, the requests count as lost and are repeated. An embedded server
	// sends none.
	heartbeat = 2 * time.Second
	// maxAsked bounds the requested bytes that have not arrived. A server closes a
	// connection with more unsent bytes than its max_pending, 64 MiB by default.
	maxAsked = 32 << 20
)

// flow has the pending requests, and the subscription of their messages. trigger.mu guards
// all but the first three fields.
type flow struct {
	inbox string
	sub   *nats.Subscription
	over  chan struct{} // closed after the last message has arrived

	asked       map[string]request // by the last token of the reply subject
	outstanding int                // messages requested that have not arrived
	signs       uint64             // messages and statuses so far
	marked      uint64             // signs when silent last saw a change
	markedAt    time.Time          // the time of that change
}

type request struct {
	messages int
	expires  time.Time
}

// toRequest returns the number of messages to request now; t.mu is locked. It is 0 until half of
// the target is used up, which keeps the number of requests low.
func (t *trigger) toRequest() int {
	target := t.prefetch + t.waiting
	have := t.prefetched.len() + t.looking + t.outstanding()
	if t.ending || t.consumer == nil || t.strays != nil || have > target/2 || have >= target || !t.verified() {
		return 0
	}
	coming := t.outstanding()
	return t.cfg.Memory.Within(maxAsked, t.cfg.Memory.More(target-have, coming), coming)
}

// weighStep is the change in prefetched bytes that is reported to the account.
const weighStep = 64 << 10

// weigh reports the prefetched bytes to the account; t.mu is locked.
func (t *trigger) weigh() {
	now, before := t.prefetched.bytes, t.weighed
	if now-before < weighStep && before-now < weighStep && (now > 0 || before == 0) {
		return
	}
	t.weighed = now
	t.cfg.Memory.Hold(int64(now), t.prefetched.largest)
	t.prefetched.largest = 0
}

// outstanding returns the number of requested messages that have not arrived; t.mu is locked.
func (t *trigger) outstanding() int {
	if t.flow == nil || t.flow.outstanding == 0 {
		return 0
	}
	return t.flow.outstanding
}

// pull requests n messages; t.mu is locked.
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
			f.signs++ // the heartbeats are due from now on
			return nil
		}
	}
	err = fmt.Errorf("asking consumer %s of stream %s for messages: %w", t.cfg.Consumer, t.cfg.Stream, err)
	t.fail(err)
	return err
}

// openFlow returns the flow, subscribed; t.mu is locked.
func (t *trigger) openFlow() (*flow, error) {
	if t.flow != nil {
		return t.flow, nil
	}
	f := &flow{inbox: t.conn.nc.NewInbox(), over: make(chan struct{}), asked: make(map[string]request)}
	var err error
	if f.sub, err = t.conn.nc.Subscribe(f.inbox+".*", func(m *nats.Msg) { t.arrived(f, m) }); err != nil {
		return nil, err
	}
	// The requests bound the pending messages.
	if err := f.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, errors.Join(err, f.sub.Unsubscribe())
	}
	f.sub.SetClosedHandler(func(string) { close(f.over) })
	t.flow = f
	return f, nil
}

// arrived is called by nats.go for each message, one at a time. It does not block.
func (t *trigger) arrived(f *flow, m *nats.Msg) {
	if strings.HasPrefix(m.Subject, f.inbox) {
		t.status(f, m)
		return
	}
	l, err := newLeasedMessage(t, m)
	if err != nil {
		t.log.Error("ignored a message that is not from JetStream", "subject", m.Subject, "error", err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveIdle()
	t.arrivals++
	f.signs++
	if f.outstanding--; f.outstanding <= 0 {
		f.outstanding = 0
		clear(f.asked)
	}
	t.admit(l)
}

// admit tracks and prefetches a message; t.mu is locked.
func (t *trigger) admit(l *leasedMessage) {
	if t.life == nil || l.delivery <= t.delivered || t.cfg.OrderingToken > 0 && t.doubtful() {
		// The consumer numbers from 1 again, so it may be a new one. The message waits until
		// the life is verified. With an ordering key it also waits after an outage, which may
		// have lost messages before it.
		t.unsure = append(t.unsure, l)
		signal(t.wakeUp)
		return
	}
	t.delivered, t.highest = l.delivery, max(t.highest, l.Sequence)
	l.life = t.life
	again := l.deliveries > 1
	if again && t.known(l) {
		signal(t.wakeReceive) // one fewer of the requested messages will arrive
		return
	}
	t.leases.add(l, time.Unix(0, t.clock.Load()))
	// With an ordering key, no message overtakes one that is being looked up.
	if again || t.looking > 0 && t.cfg.OrderingToken > 0 {
		before, here := t.looked, make(chan struct{})
		t.looked = here
		t.looking++
		t.running.Go(func() { t.lookUp(l, before, here) })
		return
	}
	t.addPrefetched(l)
}

// doubtful reports whether the connection was lost since the life was verified, or earlier
// messages wait for the verification; t.mu is locked.
func (t *trigger) doubtful() bool {
	return len(t.unsure) > 0 || t.conn.nc.Stats().Reconnects != t.checked
}

// addPrefetched makes a lease ready for Receive; t.mu is locked.
func (t *trigger) addPrefetched(l *leasedMessage) {
	if t.strays != nil {
		t.strays.add(l)
		return
	}
	t.prefetched.put(&l.Delivery)
	t.weigh()
	if t.waiting > 0 {
		signal(t.wakeReceive)
	}
}

// known reports whether a redelivered message is already leased here, or settled; t.mu is locked.
// After an outage the server redelivers messages whose acknowledgement or renewal was lost.
func (t *trigger) known(l *leasedMessage) bool {
	if t.acks.resent(l.place()) {
		if err := t.conn.nc.Publish(l.msg.Reply, ack); err != nil {
			t.log.Warn("cannot acknowledge again", "message", l.message.ID, "error", err)
		}
		return true
	}
	return t.leases.has(l.place())
}

// lookUp reads the failures of a redelivered message. Lookups run concurrently; the messages
// are prefetched in the order in which they arrived.
func (t *trigger) lookUp(l *leasedMessage, before <-chan struct{}, here chan<- struct{}) {
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
	if l.life != t.life { // its stream was recreated
		signal(t.wakeReceive)
		return
	}
	t.addPrefetched(l)
}

// pendingHeader has the number of messages of a request that the server will not deliver.
const pendingHeader = "Nats-Pending-Messages"

// status handles a status message of the server on a request.
func (t *trigger) status(f *flow, m *nats.Msg) {
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	t.mu.Lock()
	defer t.mu.Unlock()
	f.signs++
	if code == "100" || f != t.flow {
		return
	}
	if left, err := strconv.Atoi(m.Header.Get(pendingHeader)); err == nil {
		// The request has ended, usually because it expired.
		id := m.Subject[len(f.inbox)+1:]
		if _, known := f.asked[id]; known {
			delete(f.asked, id)
			f.outstanding = max(f.outstanding-left, 0)
			signal(t.wakeReceive)
		}
		return
	}
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "leadership change"), strings.Contains(lower, "server shutdown"), code == "503":
		// The consumer moves or ends. The keeper looks it up soon, and then requests more.
		t.dropRequests()
		t.checked = unverified
		t.leaveIdle()
	case strings.Contains(lower, "consumer deleted"):
		t.fail(fmt.Errorf("consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, jetstream.ErrConsumerDeleted))
	default:
		t.fail(fmt.Errorf("consumer %s of stream %s refuses a request for messages: %s %s", t.cfg.Consumer, t.cfg.Stream, code, text))
	}
}

// fail makes the next Receive return err. The one after it looks up the consumer; t.mu is locked.
func (t *trigger) fail(err error) {
	t.dropRequests()
	t.consumer = nil
	if t.failed == nil {
		t.failed = err
	}
	signal(t.wakeReceive)
}

// dropRequests drops requests that the server no longer has; t.mu is locked.
func (t *trigger) dropRequests() {
	if f := t.flow; f != nil {
		clear(f.asked)
		f.outstanding = 0
	}
}

// expire drops requests that have expired at the server without a status message; t.mu is locked.
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
		signal(t.wakeReceive)
	}
}

// silent reports whether two heartbeats of the requests are missing; t.mu is locked.
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

// requestAgain replaces requests that the server may have lost. With an ordering key the
// subscription stays: messages of two subscriptions overtake each other, and so do messages that
// the server cannot deliver because a subscription has ended.
func (t *trigger) requestAgain() {
	if t.cfg.OrderingToken == 0 {
		t.end(0)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropRequests()
	signal(t.wakeReceive)
}

// endLimit bounds the wait for messages in transit when requests are withdrawn.
const endLimit = time.Second

// end withdraws the requests, and waits for the messages in transit, which are prefetched.
// Messages released afterwards are not redelivered here.
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
	case <-limit.C: // the server is down and the requests are lost
	}
}

// quiet is the time without a message after which requests are withdrawn. A message in transit
// at that moment has no receiver, and is redelivered only after AckWait. longestQuiet bounds the
// wait for such a pause.
const (
	quiet        = 50 * time.Millisecond
	longestQuiet = time.Second
)

// withdrawRequests withdraws requests when no Receive waits. With an ordering key they stay, and
// arriving messages are kept for the next Receive: a message without a receiver would be
// redelivered behind later ones of its key.
func (t *trigger) withdrawRequests() {
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
