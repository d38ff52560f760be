// Package triggers defines the contract between drover and a source of messages. A
// Trigger leases messages from its source and returns them as Deliveries. A Verdict ends
// the lease.
//
// The dispatcher (package daemon/internal/dispatch) is the only caller. It calls Receive from one
// goroutine, settles deliveries from many, and calls Close once, after the last
// delivery is settled, because settlements use the trigger's connection.
//
// Each source is a subpackage that passes the conformance suite in triggertest. A program adds its own
// source as a Trigger (daemon.WithTrigger); docs/go.md has an example.
//
// Message, Delivery, Verdict, Lease and Trigger are stable. The other interfaces are optional for a
// Trigger or a Lease: they add prefetch, dead letters, peeking, backlogs and replies. They may change.
package triggers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Trigger receives the messages of one source: a queue, a topic subscription, a
// stream consumer.
type Trigger interface {
	// Receive waits for at least one message and returns up to max of them, where
	// max is at least 1. The end of ctx ends this call only: leases stay valid, and a
	// message that arrives too late for this call is kept for the next. The error is
	// ctx.Err() when ctx ended. Any other error means that the source cannot be read
	// now; the caller backs off and calls again.
	Receive(ctx context.Context, max int) ([]*Delivery, error)

	// Backlog returns the number and age of the messages ready at the source. The error
	// wraps ErrUnknown if the source does not report them; that is not an empty backlog.
	Backlog(ctx context.Context) (Backlog, error)

	// Close drops unsettled leases and closes the connection. The source redelivers
	// those messages when their leases expire. Close is called last.
	Close(ctx context.Context) error
}

// Drainer is a Trigger that prefetches: it leases more messages than Receive has
// requested.
type Drainer interface {
	Trigger

	// Drain requests nothing more from the source and returns up to max of the
	// prefetched messages; an empty result means that none is left. It is called instead
	// of Receive once receiving has ended for good. Prefetched messages are handled, not
	// released, because released ones are redelivered, and some sources count that.
	Drain(ctx context.Context, max int) ([]*Delivery, error)
}

// Message is immutable: neither a trigger nor a handler changes it after its delivery.
type Message struct {
	// ID is unique within the source for as long as the message lives there.
	ID string
	// Body is the payload, byte for byte as it was sent; empty is allowed.
	Body []byte
	// Attributes are the headers or properties that the sender set; nil if there are
	// none.
	Attributes map[string]string
	// Repeated has all values, in order, of the attributes that the sender set more
	// than once. Attributes has the first of them. Nil if there are none.
	Repeated map[string][]string
	// Attempt is 1 for the first attempt, and increases by one with each failure that
	// the function caused. A lease that expired or was released does not count.
	Attempt int
	// Enqueued is when the source accepted the message; zero if it does not report that.
	Enqueued time.Time
	// OrderingKey groups messages that are handled one at a time, in order;
	// empty if the source has no order.
	OrderingKey string
	// Subject is the name that the message was sent to: a NATS subject, a queue.
	Subject string
	// Session is a handle of the message's session, valid until the message is settled;
	// nil if the source has no sessions.
	Session Session
	// Origin is a handle of further properties that the source reports, valid like
	// Session; nil if there are none.
	Origin Origin
}

// Session stores state at the source. The messages of one ordering key share it, and it
// outlives the daemon.
type Session interface {
	// State returns the bytes that were set last; nil if there are none.
	State(ctx context.Context) ([]byte, error)
	// SetState replaces the bytes; nil clears them. When it returns nil, the source has
	// stored them, independently of the verdict on the message.
	SetState(ctx context.Context, state []byte) error
}

// Backlog counts the messages at the source that no function has received yet.
type Backlog struct {
	// Ready counts the messages that could be received now, without those leased by
	// this trigger.
	Ready int64
	// AtLeast is set if Ready is a lower bound: the count was cut short.
	AtLeast bool
	// Oldest is when the oldest ready message was enqueued; zero if there is none, or if
	// the source does not report it.
	Oldest time.Time
	// Unsettled counts the messages that were delivered and are not settled: in flight
	// somewhere, or waiting for a retry that needs a running receiver. It is 0 if the
	// source itself makes waiting messages ready, or does not report them.
	Unsettled int64
	// More has further counts of the source; nil if there are none.
	More *BacklogMore
}

// Holder is a Trigger that keeps messages leased until their retry. No other receiver
// gets them until it is closed.
type Holder interface {
	// Holding returns the number of these messages.
	Holding() int64
}

// BacklogMore counts messages that no receiver can get now.
type BacklogMore struct {
	Dead      int64 // dead letters
	Scheduled int64 // not due yet
}

// Linked is a Trigger that reports the state of its connection, independently of the results
// of Receive.
type Linked interface {
	// Link returns the state; known is false if the source has no connection state.
	Link() (l Link, known bool)
}

// Link is the state of a connection to a source.
type Link struct {
	// Down is when the source became unreachable; zero if it can be reached.
	Down time.Time
	// Reconnects counts the reconnections.
	Reconnects int64
}

// Enqueuer is a Trigger of a program that also accepts messages, for the admin API. drover's own triggers
// do not need it: their messages are sent to the source.
type Enqueuer interface {
	Trigger

	// Enqueue adds a message to the source, to be received at once or at the time in its property
	// ScheduledAt. It returns the message's ID. An error that wraps ErrProperty, ErrTooLarge or
	// ErrEncoding is the sender's fault. Any goroutine may call it.
	Enqueue(ctx context.Context, m *Message) (id string, err error)
}

// ErrUnknown is returned if a source does not report its backlog.
var ErrUnknown = errors.New("the source does not report its backlog")

// ErrTooLarge is returned for a message that exceeds the source's size limit.
var ErrTooLarge = errors.New("the message is too large")

// ErrEncoding is returned for a message that the source's encoding cannot represent.
var ErrEncoding = errors.New("the message cannot be encoded")

// ErrProperty is returned for a message with a property that cannot be sent.
var ErrProperty = errors.New("a property cannot be sent")

// ErrSettled is returned by Settle if the delivery was settled before.
var ErrSettled = errors.New("the delivery is settled already")

// Kind is the way in which a delivery ends.
type Kind uint8

const (
	// Done removes the message from the source.
	Done Kind = iota + 1
	// Retry makes it ready again after Verdict.Delay, and counts a failed attempt.
	Retry
	// Reject moves it to the source's dead letters, with Verdict.Reason.
	Reject
	// Release makes it ready again at once, without counting an attempt.
	Release
)

func (k Kind) String() string {
	switch k {
	case Done:
		return "done"
	case Retry:
		return "retry"
	case Reject:
		return "reject"
	case Release:
		return "release"
	}
	return "no verdict"
}

// Verdict ends a delivery.
type Verdict struct {
	Kind Kind
	// Delay is the delay of a Retry, counted from the settlement; 0 is none.
	Delay time.Duration
	// Reason is one line: why the message was rejected.
	Reason string
	// Detail is the long form of Reason, such as a traceback; may be empty.
	Detail string
	// Function is the name of the function that rejected the message.
	Function string
}

// Tail cuts text to n bytes, where n is at least 3. It keeps the end, which is the most
// useful part of a traceback.
func Tail(text string, n int) string {
	text = strings.TrimSpace(text)
	if len(text) > n {
		text = strings.ToValidUTF8("..."+text[len(text)-n+3:], "")
	}
	return text
}

// Lease is the trigger's side of one delivery.
type Lease interface {
	// Settle carries out the verdict. A nil error means that the source has accepted
	// it, or will when the connection is back. m is the message as it was delivered; its
	// Attempt minus one is the number of earlier failures.
	Settle(ctx context.Context, m *Message, v Verdict) error
}

// Delivery is a leased message, with the right to settle it exactly once. The trigger
// renews the lease until then.
type Delivery struct {
	Message *Message
	// Sequence is the message's place in the source's order, if the source has one.
	// Messages of one ordering key are delivered in this order. 0 is unknown.
	Sequence uint64

	lease   Lease
	settled atomic.Bool

	mu      sync.Mutex
	revoked bool
	handler RevokeHandler
}

// A RevokeHandler is called when the source has revoked a lease.
type RevokeHandler interface {
	// LeaseRevoked is called at most once, from any goroutine. It must not block.
	LeaseRevoked()
}

// OnRevoked sets the handler of a revoked lease. It is called at once if the lease is
// revoked already. There is one handler; a later call replaces it.
func (d *Delivery) OnRevoked(h RevokeHandler) {
	d.mu.Lock()
	d.handler = h
	revoked := d.revoked
	d.mu.Unlock()
	if revoked {
		h.LeaseRevoked()
	}
}

// Revoke is called by triggers when a lease ended before the message was settled: it
// expired, or its connection was lost. The source redelivers the message.
func (d *Delivery) Revoke() {
	d.mu.Lock()
	h, first := d.handler, !d.revoked
	d.revoked = true
	d.mu.Unlock()
	if first && h != nil && !d.settled.Load() {
		h.LeaseRevoked()
	}
}

// IsRevoked reports whether Revoke was called.
func (d *Delivery) IsRevoked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.revoked
}

// NewDelivery is called by triggers. To use one allocation for everything that it keeps
// of a message, a trigger embeds a Delivery and calls Init instead.
func NewDelivery(m *Message, lease Lease) *Delivery {
	d := new(Delivery)
	d.Init(m, lease)
	return d
}

// Init initializes a zero Delivery. It is called once.
func (d *Delivery) Init(m *Message, lease Lease) { d.Message, d.lease = m, lease }

// Settle ends the lease with a verdict. If it returns an error other than ErrSettled, the
// source did not accept the verdict, and Settle may be called again. It is safe for
// concurrent use; one caller settles, the others get ErrSettled.
func (d *Delivery) Settle(ctx context.Context, v Verdict) error {
	if !d.settled.CompareAndSwap(false, true) {
		return ErrSettled
	}
	if err := d.lease.Settle(ctx, d.Message, v); err != nil {
		d.settled.Store(false)
		return err
	}
	return nil
}
