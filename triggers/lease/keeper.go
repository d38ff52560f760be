package lease

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers/lease/record"
)

// MaxConcurrent bounds the requests for leases that run at once: each takes a round trip.
const MaxConcurrent = 32

// idleCheck is the longest time between two checks of all leases.
const idleCheck = time.Hour

// minRetry is the shortest time between a failed renewal and the next.
const minRetry = 100 * time.Millisecond

// ErrLost is returned by the renew function of Keeper.Renew if the source has given the message
// to another receiver, or the message no longer exists.
var ErrLost = errors.New("the lease was lost")

// Keeper renews leases until they are untracked. Run is called once, in its own goroutine.
// Track, Untrack, Unrecord, All and Len are called with L locked, the other methods without.
type Keeper[M any] struct {
	// L is the source's lock. It guards the Keeper and all of its items.
	L sync.Locker
	// Handle is called when a message is due, from up to MaxConcurrent goroutines, without
	// L. It renews the lease, by Renew, or ends it.
	Handle func(m M)
	// Due returns when a message is due next. It is called with L locked, also for lost
	// leases, and returns the zero time for never. Nil: when the lease must be renewed.
	Due func(m M, now time.Time) time.Time
	// Record has the leases for the next daemon; nil records none.
	Record *record.Source
	// Lost is called once when the lease of a tracked message was lost, before the
	// Delivery is revoked. L is not locked.
	Lost func(m M)

	ring  Item[M] // the head of a ring of the tracked items
	count int
	check time.Time // when Run checks next; zero before the first time
	wake  chan struct{}
}

// NewKeeper returns a Keeper without leases. L guards it; its functions are set before Run.
func NewKeeper[M any](l sync.Locker) *Keeper[M] {
	k := &Keeper[M]{L: l, wake: make(chan struct{}, 1)}
	k.ring.prev, k.ring.next = &k.ring, &k.ring
	return k
}

// Track adds a lease, from Begin on.
func (k *Keeper[M]) Track(i *Item[M]) {
	i.prev, i.next = k.ring.prev, &k.ring
	i.prev.next, k.ring.prev = i, i
	k.count++
	k.record(i)
	if k.check.IsZero() || i.renewAt.Before(k.check) {
		signal(k.wake)
	}
}

// Untrack removes a lease. It does nothing if the lease is not tracked.
func (k *Keeper[M]) Untrack(i *Item[M]) {
	if i.next == nil {
		return
	}
	i.prev.next, i.next.prev = i.next, i.prev
	i.prev, i.next = nil, nil
	k.count--
	k.Record.Drop(&i.entry)
}

// record records a lease from Begin, or a renewal, on; L is locked.
func (k *Keeper[M]) record(i *Item[M]) {
	if i.token != "" {
		k.Record.Hold(&i.entry, i.id, i.token, i.expires)
	}
}

// Unrecord removes a lease from the record until it is untracked: its message must not be redelivered
// before the lease expires.
func (k *Keeper[M]) Unrecord(i *Item[M]) {
	i.SetToken("", "")
	k.Record.Drop(&i.entry)
}

// Len is the number of leases.
func (k *Keeper[M]) Len() int { return k.count }

// All yields the messages of all leases, in the order of Track.
func (k *Keeper[M]) All() iter.Seq[M] {
	return func(yield func(M) bool) {
		for i := k.ring.next; i != &k.ring; i = i.next {
			if !yield(i.owner) {
				return
			}
		}
	}
}

// Check makes Run check all leases now, because the result of Due has changed.
func (k *Keeper[M]) Check() { signal(k.wake) }

// Run handles messages when they are due. It returns when ctx has ended and all calls of Handle
// have returned.
func (k *Keeper[M]) Run(ctx context.Context) {
	for {
		due, next := k.due(time.Now())
		if len(due) > 0 {
			Concurrently(due, k.Handle)
			continue
		}
		sleep := time.NewTimer(time.Until(next))
		select {
		case <-sleep.C:
		case <-k.wake:
		case <-ctx.Done():
			sleep.Stop()
			return
		}
		sleep.Stop()
	}
}

// due returns the messages that are due, and when the next one is.
func (k *Keeper[M]) due(now time.Time) (due []M, next time.Time) {
	next = now.Add(idleCheck)
	k.L.Lock()
	defer k.L.Unlock()
	for i := k.ring.next; i != &k.ring; i = i.next {
		at := i.renewAt
		if k.Due != nil {
			at = k.Due(i.owner, now)
		} else if i.lost {
			at = time.Time{}
		}
		switch {
		case at.IsZero():
		case !at.After(now):
			due = append(due, i.owner)
		case at.Before(next):
			next = at
		}
	}
	k.check = next
	return due, next
}

// Renew renews a lease with the source's renew function, which returns ErrLost if the lease was
// lost. The context that it gets ends after half of the lease, and at least a second.
func (k *Keeper[M]) Renew(ctx context.Context, i *Item[M], renew func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, max(i.duration/2, time.Second))
	defer cancel()
	before := time.Now()
	err := renew(ctx)
	if errors.Is(err, ErrLost) {
		k.Revoke(i)
		return
	}
	k.L.Lock()
	defer k.L.Unlock()
	if err != nil {
		i.renewAt = time.Now().Add(max(i.duration/8, minRetry))
		return
	}
	i.extend(before)
	if i.Tracked() {
		k.record(i)
	}
}

// Revoke ends a lease that was lost. It does nothing if the lease is not tracked: its message was
// settled.
func (k *Keeper[M]) Revoke(i *Item[M]) {
	k.L.Lock()
	tracked := i.Tracked()
	i.lost = true
	k.Record.Drop(&i.entry)
	k.L.Unlock()
	if tracked {
		k.Lost(i.owner)
		i.Revoke()
	}
}

// Concurrently calls do for all messages, MaxConcurrent at a time, and waits for the calls.
func Concurrently[M any](all []M, do func(M)) {
	var running sync.WaitGroup
	defer running.Wait()
	room := make(chan struct{}, MaxConcurrent)
	for _, m := range all {
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			do(m)
		})
	}
}
