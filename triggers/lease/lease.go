// Package lease manages the leased messages of a trigger from their receipt until they are
// settled. A Keeper renews their leases. A Buffer has the prefetched ones.
//
// All sources with leases have this in common:
//
//   - A lease has a fixed time. It is renewed when half of that is over, in one request per
//     message, up to MaxConcurrent at once. A failed renewal is repeated after an eighth.
//   - If the source refuses a renewal because another receiver has the message, the lease is
//     lost: the function is notified, and the message is redelivered.
//   - Messages are prefetched in the order of their arrival. Receive returns those first, and
//     requests more only while it has none. Drain returns the rest. Close releases what Drain
//     has left.
//
// They differ in these points, which stay in their packages:
//
//   - Storage queues renew with a receipt that each request replaces, so the requests of one
//     message are made one at a time. Prefetched messages that are not needed any more are
//     released when their renewal is due.
//   - Service Bus keeps a failed message leased until its retry, and may limit how long a lock
//     is renewed. Messages of a session have no locks of their own: the session has one, which
//     the session renews.
//   - NATS renews by publishing, without a response. A lost lease is never reported; it is
//     found when the stream or the consumer was recreated. So natsjs has its own list.
//
// A Keeper records the leases, so that the next daemon can release them if this one is killed:
// see package record, and ReleaseLeft.
//
// A Keeper and a Buffer have no lock of their own. The source's lock, L, guards both, so that a
// message costs no further lock.
package lease

import (
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
)

// Item is the part of a leased message that a Keeper and a Buffer need. A source embeds it in
// its own type, of which M is a pointer. So a message takes one allocation.
type Item[M any] struct {
	triggers.Delivery
	owner M

	duration, every time.Duration
	renewAt         time.Time
	expires         time.Time // if it is not renewed
	lost            bool
	prev, next      *Item[M] // of a Keeper; nil: not tracked

	entry     record.Entry
	id, token string // empty: the lease is not recorded
}

// Init initializes a zero Item, and its Delivery.
func (i *Item[M]) Init(owner M, m *triggers.Message, by triggers.Lease) {
	i.owner = owner
	i.Delivery.Init(m, by)
}

// SetToken sets the token that releases the lease, for the record of leases. It is called before
// Track, and by the renew function of Keeper.Renew if a renewal changes the token.
func (i *Item[M]) SetToken(id, token string) { i.id, i.token = id, token }

// Begin sets the term of the lease: duration, starting at from. The lease is renewed at half of
// that, and at the latest after every; 0 means no such limit. Begin is called before Track.
func (i *Item[M]) Begin(from time.Time, duration, every time.Duration) {
	i.duration, i.every = duration, duration/2
	if every > 0 {
		i.every = min(i.every, every)
	}
	i.extend(from)
}

func (i *Item[M]) extend(from time.Time) {
	i.renewAt, i.expires = from.Add(i.every), from.Add(i.duration)
}

// RenewAt is when the lease must be renewed; L is locked.
func (i *Item[M]) RenewAt() time.Time { return i.renewAt }

// Expires is when the lease expires if it is not renewed; L is locked.
func (i *Item[M]) Expires() time.Time { return i.expires }

// Lost reports whether the lease was lost; L is locked.
func (i *Item[M]) Lost() bool { return i.lost }

// Tracked reports whether a Keeper has the item; L is locked.
func (i *Item[M]) Tracked() bool { return i.next != nil }

// signal wakes the receiver of a channel with room for one value.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
