package natsjs

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
)

// A stream that is deleted and recreated numbers its messages from 1 again, and so does a
// consumer. The server settles by number: the acknowledgement of an old message would settle a
// new one with the same number. So all state here belongs to one life of stream and consumer,
// and is dropped at its end. Settlements are sent only while the life is verified on the
// current connection. During an outage they are kept until it is verified again.

// life is when a stream and its consumer were created.
type life struct {
	stream, consumer time.Time
}

// unverified is the value of binding.checked if the life must be verified on any connection.
const unverified = math.MaxUint64

// place identifies a message within a life. The time detects a store that lost its last
// messages in a crash and reuses their numbers.
type place struct {
	sequence uint64
	enqueued int64 // ns
}

// repeat is a settlement that may be sent again: its subject and its data.
type repeat struct {
	reply string
	said  []byte
}

// binding is shared by the parts of a trigger: the connection, the consumer, and its life. They
// share its lock, too, because their state belongs to that life, and is dropped with it.
type binding struct {
	conn *client.Connection
	cfg  Config
	log  *slog.Logger

	ctx         context.Context // ends with the trigger
	running     sync.WaitGroup  // the goroutines of all parts
	wakeReceive chan struct{}   // wakes Receive
	wakeKeeper  chan struct{}   // wakes the keeper to verify the life
	idling

	// ackWait is the current setting of the consumer, in ns.
	ackWait atomic.Int64

	mu         sync.Mutex
	life       *life              // nil before it is known
	consumer   jetstream.Consumer // nil if it must be looked up again
	failed     error              // for the next Receive
	maxDeliver int                // the current setting of the consumer
	checked    uint64             // the number of reconnects when the life was verified
	checkedAt  time.Time          // the time of that verification
	later      []repeat           // settlements to send when the life is verified
	ending     bool               // no more messages are requested
}

// isVerified reports whether the life was verified on the current connection; b.mu is locked.
func (b *binding) isVerified() bool {
	return b.life != nil && b.conn.Conn().IsConnected() && b.conn.Conn().Stats().Reconnects == b.checked
}

// hasEnded reports whether a life has ended.
func (b *binding) hasEnded(of *life) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return of != b.life
}

// failReceive makes the next Receive return err. The one after it looks up the consumer; b.mu is
// locked.
func (b *binding) failReceive(err error) {
	b.consumer = nil
	if b.failed == nil {
		b.failed = err
	}
	signal(b.wakeReceive)
}

// sendOf sends a settlement or a renewal of a life. During an outage it is kept until the life is
// verified. If the life has ended, sendOf does nothing.
func (b *binding) sendOf(of *life, reply string, said []byte) error {
	b.mu.Lock()
	ended, sure := of != b.life, b.isVerified()
	if !ended && !sure {
		b.later = append(b.later, repeat{reply, said})
	}
	b.mu.Unlock()
	if ended || !sure {
		return nil
	}
	return b.conn.Conn().Publish(reply, said)
}

// idleInterval is the interval for verifying the life while nothing is in flight, and the time that
// the server keeps a request for messages. The embedded server is in this process: it loses no
// request, and reports a deleted consumer. With a thousand functions, a check every 30 seconds uses
// 3 % of a core.
func (b *binding) idleInterval() time.Duration {
	if b.conn.IsEmbedded() {
		return 3 * time.Minute
	}
	return 30 * time.Second
}

// followSettings adopts the consumer's settings that may change during its use; b.mu is locked.
func (b *binding) followSettings(c jetstream.ConsumerConfig) {
	wait := c.AckWait
	for _, w := range c.BackOff {
		wait = min(wait, w)
	}
	before := b.ackWait.Swap(int64(wait))
	edited := before != 0 && (time.Duration(before) != wait || b.maxDeliver != c.MaxDeliver)
	b.maxDeliver = c.MaxDeliver
	if !edited {
		return
	}
	attrs := []any{"ack_wait", wait, "max_deliver", c.MaxDeliver}
	if wrong := consumers.Conflicts(c, b.cfg.Config); len(wrong) > 0 {
		b.log.Warn("the consumer was edited and is followed, but the next start will refuse it", append(attrs, "why", wrong)...)
		return
	}
	b.log.Info("the consumer was edited; its new settings are followed", attrs...)
}
