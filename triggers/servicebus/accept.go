package servicebus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// acceptLimit bounds one request for a session; the service's own limit is about a minute.
const acceptLimit = 50 * time.Second

// errReplaced is returned if a client was replaced by another.
var errReplaced = errors.New("the client was replaced")

// holdSessions accepts and serves one session after the other.
func (e *entity) holdSessions() {
	t := e.t
	pause, failures := retryBackoff(), 0
	for e.roomForSession() {
		by := e.current.Load()
		r, err := e.accept(by)
		if err != nil {
			e.accepted()
		}
		if t.ctx.Err() != nil && err != nil {
			return
		}
		if errors.Is(err, errReplaced) {
			continue
		}
		if err == nil {
			if failures > 0 {
				t.works(e.address)
			}
			failures = 0
			pause.Reset()
			newSession(e, r).run()
			by.users.done()
			continue
		}
		var timeout *azservicebus.Error
		if errors.As(err, &timeout) && timeout.Code == azservicebus.CodeTimeout || errors.Is(err, context.DeadlineExceeded) {
			if failures > 0 {
				t.works(e.address)
			}
			continue // no session has messages
		}
		failures++
		if needsNewLink(err) || failures > reopenAfter {
			if broken := e.reopen(by); broken != nil {
				err = errors.Join(err, broken)
			}
		}
		t.fail(e.address, fmt.Errorf("accepting a session of %s: %w", e.path(), namespace.Explain(err, namespace.Listen)))
		select {
		case <-time.After(pause.NextBackOff()):
		case <-t.ctx.Done():
		}
	}
}

// roomForSession waits until a Receive requests more messages than are prefetched or expected:
// each session being accepted counts as one message. It returns false at the end.
func (e *entity) roomForSession() bool {
	t := e.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.ctx.Err() == nil {
		if t.waiting()-t.buffer.Len() > e.sessions.accepting {
			e.sessions.accepting++
			return true
		}
		t.room.Wait()
	}
	return false
}

// accept waits for a session with messages that no receiver has locked. If it returns a session,
// by has one more user.
func (e *entity) accept(by *link) (*azservicebus.SessionReceiver, error) {
	ctx, cancel := context.WithTimeout(e.t.ctx, acceptLimit)
	defer cancel()
	if !by.users.add() {
		return nil, errReplaced
	}
	r, err := e.acceptNext(ctx, by.client)
	if err != nil {
		by.users.done()
		return nil, err
	}
	return r, nil
}

func (e *entity) acceptNext(ctx context.Context, client *azservicebus.Client) (*azservicebus.SessionReceiver, error) {
	if e.queue != "" {
		return client.AcceptNextSessionForQueue(ctx, e.queue, nil)
	}
	return client.AcceptNextSessionForSubscription(ctx, e.topic, e.subscription, nil)
}
