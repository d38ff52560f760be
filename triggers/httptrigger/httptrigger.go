// Package httptrigger is a trigger whose messages are HTTP requests. The result of the function is
// the response.
//
// A Server listens on one address for all functions of a daemon. Each function has a Trigger with
// a route. A request that matches the route waits in the trigger until Receive hands it out, and
// its goroutine waits for the reply:
//
//   - Reply passes the function's result to the client, and ReplyStream does so in parts.
//   - Without a reply, the verdict is the response: 204 for Done, 500 for Retry and Reject, 503 for
//     Release. A request is never delivered twice.
//   - A client that disconnects revokes the delivery. If it was not received yet, it is dropped.
//
// The Server refuses what must not reach a function: requests without a key, that are too large, or
// that nobody can run now. So a request uses memory and a slot only after it has arrived whole.
//
// See package triggers for who calls a Trigger. A Server may be used by many goroutines.
package httptrigger

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
	"github.com/drover-run/drover/triggers/httptrigger/response"
	"github.com/drover-run/drover/triggers/httptrigger/routes"
)

// Config is the configuration of the trigger of one function.
type Config struct {
	Function string
	Route    *routes.Route
	Methods  []string // in upper case; empty: all
	Level    keys.Level
	Access   Access
	Limits   Limits
	Headers  map[string]string // of each response that does not set them; names are not case-sensitive
	Memory   *triggers.Account // of the bodies that wait; nil: they are not counted
	Log      *slog.Logger
}

// Access are the keys of a server.
type Access struct {
	Keys *keys.Ring
	// Open is set if requests need no keys while there are none: the server can be reached only
	// from its own machine.
	Open bool
}

// Limits bound requests.
type Limits struct {
	// MaxBody is the largest body, in bytes.
	MaxBody int64
	// MaxOutstanding is how many requests the server may have at once, waiting and running; 0 is no
	// limit.
	MaxOutstanding int
	// QueueTimeout is how long a request waits for the function to receive it.
	QueueTimeout time.Duration
	// BodyTimeout is how long a client may take to send a body, besides the time for its bytes at
	// 16 KiB per second.
	BodyTimeout time.Duration
}

// frontend is the server of a trigger.
type frontend interface {
	Address() string
	// addOutstanding changes the number of requests of all functions, and returns it.
	addOutstanding(n int64) int64
	// triggerDrains is called when the trigger refuses new requests, and removeTrigger when it is
	// closed.
	triggerDrains()
	removeTrigger(t *Trigger)
}

// errClosed is the error of Receive after Close.
var errClosed = errors.New("the HTTP trigger is closed")

// Trigger implements triggers.Trigger. Server.Open returns it.
type Trigger struct {
	cfg    Config
	server frontend
	wake   chan struct{} // wakes Receive

	mu          sync.Mutex
	first, last *request // the waiting requests, in order
	count       int      // of them
	held        int64    // bytes of the bodies that were read and not received
	closed      bool
	draining    bool
	suspended   string // why nothing is received; empty: it is
	until       time.Time

	responses response.Counts
}

var (
	_ triggers.Drainer      = (*Trigger)(nil)
	_ triggers.Suspender    = (*Trigger)(nil)
	_ triggers.LocalBacklog = (*Trigger)(nil)
	_ triggers.Discarder    = (*Trigger)(nil)
	_ triggers.Noter        = (*Trigger)(nil)
	_ triggers.Responder    = (*Trigger)(nil)
)

// Receive implements triggers.Trigger.
func (t *Trigger) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		got, closed := t.takeWaiting(max)
		switch {
		case len(got) > 0:
			return got, nil
		case closed:
			return nil, errClosed
		}
		select {
		case <-t.wake:
		case <-ctx.Done():
		}
	}
}

// Drain implements triggers.Drainer. From the first call on, new requests are refused.
func (t *Trigger) Drain(_ context.Context, max int) ([]*triggers.Delivery, error) {
	t.mu.Lock()
	first := !t.draining
	t.draining = true
	t.mu.Unlock()
	if first {
		t.server.triggerDrains()
	}
	got, _ := t.takeWaiting(max)
	return got, nil
}

// takeWaiting returns up to max requests that wait, which are then received.
func (t *Trigger) takeWaiting(max int) (got []*triggers.Delivery, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := min(max, t.count); n > 0 {
		got = make([]*triggers.Delivery, 0, n)
	}
	for t.first != nil && len(got) < max {
		q := t.first
		t.unlink(q)
		got = append(got, &q.Delivery)
	}
	return got, t.closed
}

// unlink removes a request from the waiting ones; mu is held.
func (t *Trigger) unlink(q *request) {
	if q.previous == nil {
		t.first = q.next
	} else {
		q.previous.next = q.next
	}
	if q.next == nil {
		t.last = q.previous
	} else {
		q.next.previous = q.previous
	}
	q.previous, q.next, q.waits = nil, nil, false
	t.count--
	t.hold(q, 0)
}

// hold counts n bytes for the body of a request; mu is held.
func (t *Trigger) hold(q *request, n int64) {
	if n == q.held {
		return
	}
	largest := max(n-q.held, 0)
	t.held += n - q.held
	q.held = n
	t.cfg.Memory.Hold(t.held, int(largest))
}

// reserve counts n bytes for a body that is being read. The error is errNoMemory.
func (t *Trigger) reserve(q *request, n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.cfg.Memory.Fits(n - q.held) {
		return errNoMemory
	}
	t.hold(q, n)
	return nil
}

// release stops counting a request.
func (t *Trigger) release(q *request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hold(q, 0)
}

// addWaiting adds a request, and reports whether it will be received. Otherwise it returns the
// response.
func (t *Trigger) addWaiting(q *request) (refused *response.Response) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused := t.refusalNow(); refused != nil {
		return refused
	}
	if q.previous = t.last; t.last == nil {
		t.first = q
	} else {
		t.last.next = q
	}
	t.last, q.waits = q, true
	t.count++
	t.hold(q, int64(len(q.message.Body)))
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

// refusal returns the response to a request that would not be received; nil if it would be.
func (t *Trigger) refusal() *response.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusalNow()
}

// refusalNow is refusal; mu is held.
func (t *Trigger) refusalNow() *response.Response {
	switch {
	case t.closed || t.draining:
		out := response.Unavailable("the function is stopping", time.Second)
		out.Closes = true
		return out
	case t.suspended != "":
		return response.Unavailable("the function is "+t.suspended, time.Until(t.until))
	}
	return nil
}

// stopWaiting removes a request that was not received, and reports whether it waited.
func (t *Trigger) stopWaiting(q *request) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !q.waits {
		return false
	}
	t.unlink(q)
	return true
}

// refuseWaiting answers all requests that wait.
func (t *Trigger) refuseWaiting() {
	t.mu.Lock()
	defer t.mu.Unlock()
	refused := t.refusalNow()
	for t.first != nil {
		q := t.first
		t.unlink(q)
		q.finish(refused)
	}
}

// Suspend implements triggers.Suspender.
func (t *Trigger) Suspend(reason string, until time.Time) {
	t.mu.Lock()
	t.suspended, t.until = reason, until
	t.mu.Unlock()
	if reason != "" {
		t.refuseWaiting()
	}
}

// Backlog implements triggers.Trigger.
func (t *Trigger) Backlog(context.Context) (triggers.Backlog, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := triggers.Backlog{Ready: int64(t.count)}
	if t.first != nil {
		b.Oldest = t.first.message.Enqueued
	}
	return b, nil
}

// WaitingCount implements triggers.LocalBacklog.
func (t *Trigger) WaitingCount() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(t.count)
}

// ResponseCounts implements triggers.Responder.
func (t *Trigger) ResponseCounts() map[string]int64 { return t.responses.ReadCounts() }

// DiscardsRejected implements triggers.Discarder: the client has the response.
func (*Trigger) DiscardsRejected() {}

// Notes implements triggers.Noter.
func (t *Trigger) Notes() []string {
	notes := []string{"requests are answered at " + t.URL()}
	if t.cfg.Level != keys.Anonymous && !t.cfg.Access.isOpen() && !t.cfg.Access.Keys.HasKeyFor(t.cfg.Function, t.cfg.Level) {
		notes = append(notes, "all requests are answered with 401, because there is no key; set http.keys")
	}
	if err := t.cfg.Access.Keys.Err(); err != nil {
		notes = append(notes, "the keys cannot be read again, so the earlier ones count: "+err.Error())
	}
	return notes
}

// URL returns the address of the function, with the template of its route.
func (t *Trigger) URL() string { return "http://" + t.server.Address() + "/" + t.cfg.Route.String() }

// isOpen reports whether requests need no keys.
func (a Access) isOpen() bool { return a.Open && a.Keys.IsEmpty() }

// Close implements triggers.Trigger. Requests that were not received are answered with 503.
func (t *Trigger) Close(context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.refuseWaiting()
	t.server.removeTrigger(t)
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}
