package emulator

import (
	"slices"

	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// link carries messages in one direction: from the client to a queue, topic or the management node,
// or from a queue to the client. The namespace's lock guards it.
type link struct {
	s        *session
	name     string
	handle   uint32 // the same both ways
	fromPeer bool   // the other side sends
	path     string
	detached bool // we detached it

	// Outgoing messages.
	receiver *broker.Receiver // of a queue
	settled  bool             // it is sent settled: receive and delete
	credit   uint32           // messages that may still be sent
	count    uint32           // messages sent
	drain    bool
	reply    string   // a target that answers are sent to
	answers  [][]byte // to it, that wait for credit
	asks     bool     // it receives answers
	waiting  []any    // the attach that is to be answered when there is a session

	// Incoming messages.
	manage func(*amqp.Message) *amqp.Message // management; nil: it goes to path
	claims bool                              // it goes to $cbs
	part   partial
	taken  uint32
}

// partial is a message of which a part has arrived.
type partial struct {
	data     []byte
	delivery uint32
	format   uint32
	size     uint64 // of the parts that arrived; data has no more than the limit
}

// Detach implements broker.Link: the emulator ends the link.
func (l *link) Detach(cond *codec.Condition) {
	l.leave()
	if l.detached {
		return
	}
	l.detached = true
	l.s.c.send(l.s.channel, codec.OpDetach, []any{l.handle, true, cond.Value()}, nil)
}

// leave removes a link from its queue.
func (l *link) leave() {
	l.s.blocked = slices.DeleteFunc(l.s.blocked, func(t transfer) bool { return t.link == l })
	if l.claims {
		l.claims, l.s.c.hasClaims = false, false
	}
	l.waiting = nil
	if l.receiver != nil {
		l.receiver.Leave()
	}
}

// envelope is the maximum number of bytes that the service adds to a message, and a request to one.
const envelope = 64 << 10

// limit is the size of the largest message on the link; 0 is unlimited.
func (l *link) limit() uint64 {
	size := l.s.c.MaxMessageSize
	switch {
	case l.asks:
		return 0
	case l.fromPeer && l.manage == nil:
		return size
	}
	return size + envelope
}

// replenish gives the client credit to send.
func (l *link) replenish() {
	s := l.s
	s.c.send(s.channel, codec.OpFlow, []any{s.incoming, uint32(incomingWindow), s.outgoing, uint32(incomingWindow),
		l.handle, l.taken, uint32(senderCredit)}, nil)
}

// CanTake implements broker.Link.
func (l *link) CanTake() bool {
	return l.credit > 0 && l.s.window > 0 && len(l.s.blocked) == 0 && l.waiting == nil && !l.detached
}

// Transmit implements broker.Link: it sends a message, in as many frames as necessary. Delivery
// numbers are independent of frames, and have no gaps: the JavaScript SDK checks that.
func (l *link) Transmit(tag, data []byte) (delivery uint32) {
	s := l.s
	delivery = s.deliveries
	s.deliveries++
	l.credit--
	l.count++
	const room = codec.MaxFrame - 512
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), room)
		fields := []any{l.handle, nil, nil, nil, nil, n < len(data)}
		if first {
			fields = []any{l.handle, delivery, tag, uint32(0), l.settled, n < len(data)}
		}
		s.blocked = append(s.blocked, transfer{l, fields, data[:n]})
		data = data[n:]
	}
	s.flush()
	return delivery
}

// maxAnswers limits the answers to a client that sends requests but does not read.
const maxAnswers = 10_000

// sendAnswers sends as many answers as the credit allows.
func (l *link) sendAnswers() {
	for len(l.answers) > 0 && l.CanTake() {
		l.Transmit(codec.NewUUID().DeliveryTag(), l.answers[0])
		l.answers = l.answers[1:]
	}
	if len(l.answers) > maxAnswers {
		l.answers = nil
	}
}
