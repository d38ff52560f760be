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

// nats.go's own Consume is not used, for two reasons. It does not renew the leases in its buffer.
// And each of its subscriptions calls back from its own goroutine, so that messages of one
// request overtake those of another. Here all requests share one subscription: messages arrive in
// the order in which the server delivers them.

const (
	// heartbeat is the interval of the server's heartbeats while a request waits. If two in
	// a row are missing, the requests count as lost and are repeated. An embedded server
	// sends none.
	heartbeat = 2 * time.Second
	// maxAsked bounds the requested bytes that have not arrived. A server closes a
	// connection with more unsent bytes than its max_pending, 64 MiB by default.
	maxAsked = 32 << 20
	// withdrawLimit bounds the wait for messages in transit when requests are withdrawn.
	withdrawLimit = time.Second
	// pendingHeader has the number of messages of a request that the server will not deliver.
	pendingHeader = "Nats-Pending-Messages"
)

// requests are a trigger's requests for messages. binding.mu guards them.
type requests struct {
	*binding
	accept   func(*flow, *nats.Msg) // called for each message, one at a time; must not block
	flow     *flow                  // nil before the first request
	made     uint64                 // requests so far
	arrivals uint64                 // messages so far
}

// flow has the pending requests, and the subscription of their messages. binding.mu guards
// all but the first three fields.
type flow struct {
	inbox string
	sub   *nats.Subscription
	over  chan struct{} // closed after the last message has arrived

	asked       map[string]request // by the last token of the reply subject
	outstanding int                // messages requested that have not arrived
	signs       uint64             // messages and statuses so far
	marked      uint64             // signs when areSilent last saw a change
	markedAt    time.Time          // the time of that change
}

type request struct {
	messages int
	expires  time.Time
}

// outstanding returns the number of requested messages that have not arrived; r.mu is locked.
func (r *requests) outstanding() int {
	if r.flow == nil {
		return 0
	}
	return r.flow.outstanding
}

// pull requests n messages; r.mu is locked. The next Receive returns an error.
func (r *requests) pull(n int) {
	limits := r.consumer.CachedInfo().Config
	if limits.MaxRequestBatch > 0 {
		n = min(n, limits.MaxRequestBatch)
	}
	expiry := r.idleInterval()
	if limits.MaxRequestExpires > 0 {
		expiry = min(expiry, limits.MaxRequestExpires)
	}
	f, err := r.openFlow()
	if err == nil {
		r.made++
		id := strconv.FormatUint(r.made, 10)
		ask := fmt.Appendf(nil, `{"batch":%d,"expires":%d`, n, expiry.Nanoseconds())
		if expiry >= 2*heartbeat && !r.conn.IsEmbedded() {
			ask = fmt.Appendf(ask, `,"idle_heartbeat":%d`, heartbeat.Nanoseconds())
		}
		if err = r.conn.Conn().PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+r.cfg.Stream+"."+r.cfg.Consumer, f.inbox+"."+id, append(ask, '}')); err == nil {
			f.asked[id] = request{n, time.Now().Add(expiry)}
			f.outstanding += n
			f.signs++ // the heartbeats are due from now on
			return
		}
	}
	r.failAll(fmt.Errorf("asking %s for messages: %w", r.cfg, err))
}

// openFlow returns the flow, subscribed; r.mu is locked.
func (r *requests) openFlow() (*flow, error) {
	if r.flow != nil {
		return r.flow, nil
	}
	f := &flow{inbox: r.conn.Conn().NewInbox(), over: make(chan struct{}), asked: make(map[string]request)}
	var err error
	if f.sub, err = r.conn.Conn().Subscribe(f.inbox+".*", func(m *nats.Msg) {
		if strings.HasPrefix(m.Subject, f.inbox) {
			r.readStatus(f, m)
		} else {
			r.accept(f, m)
		}
	}); err != nil {
		return nil, err
	}
	// The requests bound the pending messages.
	if err := f.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, errors.Join(err, f.sub.Unsubscribe())
	}
	f.sub.SetClosedHandler(func(string) { close(f.over) })
	r.flow = f
	return f, nil
}

// countArrival counts a message as arrived; r.mu is locked.
func (r *requests) countArrival(f *flow) {
	r.arrivals++
	f.signs++
	if f.outstanding--; f.outstanding <= 0 {
		f.outstanding = 0
		clear(f.asked)
	}
}

// readStatus handles a status message of the server on a request.
func (r *requests) readStatus(f *flow, m *nats.Msg) {
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	r.mu.Lock()
	defer r.mu.Unlock()
	f.signs++
	if code == "100" || f != r.flow {
		return
	}
	if left, err := strconv.Atoi(m.Header.Get(pendingHeader)); err == nil {
		// The request has ended, usually because it expired.
		id := m.Subject[len(f.inbox)+1:]
		if _, known := f.asked[id]; known {
			delete(f.asked, id)
			f.outstanding = max(f.outstanding-left, 0)
			signal(r.wakeReceive)
		}
		return
	}
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "leadership change"), strings.Contains(lower, "server shutdown"), code == "503":
		// The consumer moves or ends. The keeper looks it up soon, and then requests more.
		r.dropAll()
		r.checked = unverified
		r.leaveIdle()
	case strings.Contains(lower, "consumer deleted"):
		r.failAll(fmt.Errorf("%s: %w", r.cfg, jetstream.ErrConsumerDeleted))
	default:
		r.failAll(fmt.Errorf("%s refuses a request for messages: %s %s", r.cfg, code, text))
	}
}

// failAll drops the requests, and makes the next Receive return err; r.mu is locked.
func (r *requests) failAll(err error) {
	r.dropAll()
	r.failReceive(err)
}

// dropAll drops requests that the server no longer has; r.mu is locked.
func (r *requests) dropAll() {
	if f := r.flow; f != nil {
		clear(f.asked)
		f.outstanding = 0
	}
}

// dropExpired drops requests that have expired at the server without a status message; r.mu is
// locked.
func (r *requests) dropExpired(now time.Time) {
	f := r.flow
	if f == nil || f.outstanding == 0 {
		return
	}
	left := 0
	for id, asked := range f.asked {
		if now.After(asked.expires.Add(2 * heartbeat)) {
			delete(f.asked, id)
			continue
		}
		left += asked.messages
	}
	if f.outstanding > left {
		f.outstanding = left
		signal(r.wakeReceive)
	}
}

// areSilent reports whether two heartbeats of the requests are missing; r.mu is locked.
func (r *requests) areSilent(now time.Time) bool {
	f := r.flow
	if f == nil || f.outstanding == 0 {
		return false
	}
	if f.marked != f.signs+1 {
		f.marked, f.markedAt = f.signs+1, now
	}
	return now.Sub(f.markedAt) >= 2*heartbeat
}

// renewAll replaces requests that the server may have lost. With an ordering key the
// subscription stays: messages of two subscriptions overtake each other, and so do messages that
// the server cannot deliver because a subscription has ended.
func (r *requests) renewAll() {
	if r.cfg.OrderingToken == 0 {
		r.withdraw(0)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropAll()
	signal(r.wakeReceive)
}

// withdraw withdraws the requests, and waits for the messages in transit, which are prefetched.
// Messages released afterwards are not redelivered here.
func (r *requests) withdraw(atMost time.Duration) {
	r.mu.Lock()
	f := r.flow
	r.flow = nil
	r.mu.Unlock()
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
