// Package triggers holds what a source of messages is to drover: a Trigger that
// lends messages out as Deliveries, and the Verdicts that end a loan.
//
// The dispatcher (package daemon) is the only caller. It calls Receive from one
// goroutine, settles deliveries from many, and calls Close once, after the last
// delivery is settled: settlements travel on the trigger's connection.
//
// Each source is a subpackage, and each passes the suite in triggertest.
package triggers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Trigger is where a function's messages come from: a queue, a topic
// subscription, a stream consumer.
type Trigger interface {
	// Receive waits for at least one message and returns up to max of them.
	// max is at least 1. The end of ctx ends the receiving only: loans made
	// before stay, and a message that arrived too late for this call is kept
	// for the next. The error is ctx.Err() when ctx ended; any other error
	// means that the source cannot be read now, and the caller backs off.
	Receive(ctx context.Context, max int) ([]*Delivery, error)

	// Backlog reports what waits at the source. ErrUnknown means that the
	// source does not tell, which is not the same as nothing.
	Backlog(ctx context.Context) (Backlog, error)

	// Close gives unsettled loans up (the source lends them again in its own
	// time) and ends the connection. It is called last.
	Close(ctx context.Context) error
}

// Drainer is a Trigger that holds messages ready beyond those that were asked for.
type Drainer interface {
	Trigger

	// Drain asks the source for no more, and returns up to max of the messages that
	// are held; none when there are none left. It is called in place of Receive, when
	// receiving has ended for good: what the source has lent is worked on, since what
	// is given back is delivered again, and some sources count that.
	Drain(ctx context.Context, max int) ([]*Delivery, error)
}

// Message is immutable data: neither a trigger nor a handler changes it once it
// was delivered.
type Message struct {
	// ID is unique within the source for as long as the message lives there.
	ID string
	// Body is the payload, byte for byte as it was sent; empty is allowed.
	Body []byte
	// Attributes are the headers or properties that the sender gave; nil where
	// there are none.
	Attributes map[string]string
	// Repeated has all values, in their order, of the attributes that the sender gave more
	// than once, of which Attributes has the first; nil where there are none.
	Repeated map[string][]string
	// Attempt is 1 for the first, and one more for each failure that the
	// function caused. A loan that was lost or released does not count.
	Attempt int
	// Enqueued is when the source took the message in; zero if it doesn't tell.
	Enqueued time.Time
	// OrderingKey groups messages that are handled one at a time, in order;
	// empty where the source has no order.
	OrderingKey string
	// Subject is the name that the message was sent to: a NATS subject, a queue.
	Subject string
	// Session is what the message belongs to, where the source has sessions: a
	// handle, not data, and good until the message is settled. Else nil.
	Session Session
	// Origin is what the source says of the message beside that: a handle, like Session.
	// Nil where that is no more than is here.
	Origin Origin
}

// Session is a place for state at the source, shared by the messages of one
// ordering key, and kept when the daemon ends.
type Session interface {
	// State returns the bytes that were set last; nil if there are none.
	State(ctx context.Context) ([]byte, error)
	// SetState replaces them; nil clears them. They are at the source when it
	// returns nil, whatever becomes of the message.
	SetState(ctx context.Context, state []byte) error
}

// Backlog is what waits at the source and is not yet handed out.
type Backlog struct {
	// Ready counts the messages that could be received now. Messages on loan to
	// this trigger are not among them.
	Ready int64
	// AtLeast says that there may be more than Ready: it was not counted to the end.
	AtLeast bool
	// Oldest is when the oldest ready message was enqueued; zero if there is
	// none, or if the source does not tell.
	Oldest time.Time
	// Unsettled counts the messages that were delivered and are not settled: in flight
	// somewhere, or waiting for a retry that somebody has to be there for. 0 where the
	// source makes what waits ready by itself, or does not tell.
	Unsettled int64
	// More is what else the source tells; nil if nothing.
	More *BacklogMore
}

// Holder is a Trigger that keeps messages for their retry, which nobody else gets
// before it is closed.
type Holder interface {
	// Holding counts them.
	Holding() int64
}

// BacklogMore are messages that wait for something other than a receiver.
type BacklogMore struct {
	Dead      int64 // dead letters
	Scheduled int64 // for later
}

// Linked is a Trigger that knows the state of its connection, apart from what
// Receive says.
type Linked interface {
	// Link returns the state; known is false where there is none.
	Link() (l Link, known bool)
}

// Link is the state of a connection to a source.
type Link struct {
	// Down is since when the source cannot be reached; zero if it can.
	Down time.Time
	// Reconnects counts how often it could be again.
	Reconnects int64
}

// ErrUnknown says that a source does not tell its backlog.
var ErrUnknown = errors.New("the source does not tell its backlog")

// ErrTooLarge says that a source does not take a message of that size.
var ErrTooLarge = errors.New("the message is too large")

// ErrEncoding says that a source's encoding cannot carry a message.
var ErrEncoding = errors.New("the message cannot be encoded")

// ErrSettled says that a delivery was settled before: each is settled once.
var ErrSettled = errors.New("the delivery is settled already")

// Kind is how a delivery ends.
type Kind uint8

const (
	// Done removes the message from the source.
	Done Kind = iota + 1
	// Retry lends it again after Verdict.Delay, with one attempt more.
	Retry
	// Reject moves it to the source's dead letters with Verdict.Reason.
	Reject
	// Release gives it back at once, as if it had never been lent.
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
	// Delay is how long a Retry waits, counted from the settlement; 0 is now.
	Delay time.Duration
	// Reason says in a line why a message was rejected.
	Reason string
	// Detail is the long form of the reason, such as a traceback; may be empty.
	Detail string
	// Function is the name of the function that rejected the message.
	Function string
}

// Tail cuts a text to n bytes, of which there are at least 3: what is kept is its
// end, which of a traceback tells most.
func Tail(text string, n int) string {
	text = strings.TrimSpace(text)
	if len(text) > n {
		text = strings.ToValidUTF8("..."+text[len(text)-n+3:], "")
	}
	return text
}

// Loan is the trigger's side of one delivery.
type Loan interface {
	// Settle carries out the verdict. A nil error means that the source has
	// it, or will have it as soon as the connection is back. m is the message
	// as it was delivered; its Attempt tells how many failures went before.
	Settle(ctx context.Context, m *Message, v Verdict) error
}

// Delivery is a message on loan, with the right to settle it, exactly once. The
// trigger keeps the loan alive until then.
type Delivery struct {
	Message *Message
	// Sequence is the message's place in the source's order, as far as the source has one: those
	// of one ordering key are handed out by it. 0 is unknown.
	Sequence uint64

	loan    Loan
	settled atomic.Bool

	mu      sync.Mutex
	lost    bool
	watcher Watcher
}

// Watcher is told that a loan was lost.
type Watcher interface {
	// Lost is called once, from any goroutine, and does not wait.
	Lost()
}

// Watch has w told, at once if the loan is lost already. There is one watcher.
func (d *Delivery) Watch(w Watcher) {
	d.mu.Lock()
	d.watcher = w
	lost := d.lost
	d.mu.Unlock()
	if lost {
		w.Lost()
	}
}

// Lose is for triggers: the source has taken the loan back before it was
// settled, and lends the message again.
func (d *Delivery) Lose() {
	d.mu.Lock()
	w, first := d.watcher, !d.lost
	d.lost = true
	d.mu.Unlock()
	if first && w != nil && !d.settled.Load() {
		w.Lost()
	}
}

// IsLost reports whether the source has taken the loan back.
func (d *Delivery) IsLost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// NewDelivery is for triggers. A trigger that wants one allocation for all that
// it keeps of a message embeds a Delivery and calls Init instead.
func NewDelivery(m *Message, loan Loan) *Delivery {
	d := new(Delivery)
	d.Init(m, loan)
	return d
}

// Init makes the zero Delivery ready; it is called once.
func (d *Delivery) Init(m *Message, loan Loan) { d.Message, d.loan = m, loan }

// Settle ends the loan. When it returns an error other than ErrSettled the
// source did not take the verdict, and Settle may be called again. It is safe
// for use by many goroutines; one of them settles.
func (d *Delivery) Settle(ctx context.Context, v Verdict) error {
	if !d.settled.CompareAndSwap(false, true) {
		return ErrSettled
	}
	if err := d.loan.Settle(ctx, d.Message, v); err != nil {
		d.settled.Store(false)
		return err
	}
	return nil
}
