// Package broker has the entities of the emulator's namespace: queues, topics and subscriptions,
// with sessions, dead letters, scheduling, deferral, time to live, forwarding and lock expiry. It
// has no connections: it sends a message over the Link of a Receiver.
//
// One lock guards a Namespace with all its entities and receivers. The methods of Controls take it.
// All other methods require that the caller holds it (Namespace.Lock), and the broker holds it when
// it calls a Link.
package broker

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Namespace finds entities by path, and sends messages to them.
type Namespace struct {
	sync.Mutex
	log    *slog.Logger
	clock  clock
	queues map[string]*Queue // by lower-case path, subscriptions too
	topics map[string]*Topic
}

// New returns an empty namespace. Run runs its clock.
func New(now func() time.Time, log *slog.Logger) *Namespace {
	return &Namespace{
		log: log, clock: clock{now: now, due: make(chan struct{}, 1)},
		queues: make(map[string]*Queue), topics: make(map[string]*Topic),
	}
}

// Run runs timers, such as the end of a lock, until stop is closed. It takes the lock itself.
func (n *Namespace) Run(stop <-chan struct{}) { n.clock.run(n, stop) }

// Jump makes Run check its timers after the clock was set. It does not need the lock.
func (n *Namespace) Jump() { n.clock.wake() }

// After calls do when the clock has advanced by d.
func (n *Namespace) After(d time.Duration, do func()) { n.clock.at(n.clock.now().Add(d), do) }

// Queue returns the queue, subscription or dead-letter queue at a path.
func (n *Namespace) Queue(path string) (*Queue, *codec.Condition) {
	name := strings.ToLower(strings.Trim(path, "/"))
	parent, dead := strings.CutSuffix(name, "/$deadletterqueue")
	q := n.queues[parent]
	if q != nil && dead {
		q = q.dead
	}
	if q == nil {
		return nil, codec.Failure(codec.CondNotFound, "The messaging entity '%s' could not be found.", path)
	}
	return q, nil
}

// Topic returns the topic at a path; nil if there is none.
func (n *Namespace) Topic(path string) *Topic { return n.topics[strings.ToLower(path)] }

// Send puts a message into a queue or a topic, and returns its sequence number there; 0 if it was
// forwarded.
func (n *Namespace) Send(path string, m *codec.Message) (int64, *codec.Condition) {
	return n.forward(path, m, 0)
}

// maxHops limits forwarding.
const maxHops = 4

func (n *Namespace) forward(path string, m *codec.Message, hops int) (int64, *codec.Condition) {
	if hops > maxHops {
		return 0, codec.Failure(codec.CondArgument, "Maximum transfer hop count of %d reached.", maxHops)
	}
	if t := n.Topic(path); t != nil {
		return t.publish(m, hops)
	}
	q, cond := n.Queue(path)
	if cond != nil {
		return 0, cond
	}
	return q.put(m, hops)
}

// DetachAll ends the links of all receivers except those of dead letters.
func (n *Namespace) DetachAll(cond *codec.Condition) {
	for _, q := range n.queues {
		q.detachReceivers(cond)
	}
}
