package emulator

import (
	"strings"

	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// maxDelivery limits a message that is received in parts, regardless of the message size limit.
const maxDelivery = 128 << 20

// transfer receives a message, or a part of one.
func (l *link) transfer(f codec.Frame) {
	c := l.s.c
	if l.detached {
		return // it crossed our detach
	}
	if l.part.size == 0 {
		l.part.delivery, l.part.format = codec.Field[uint32](f.Fields, 1), codec.Field[uint32](f.Fields, 3)
	}
	if l.part.size += uint64(len(f.Payload)); l.part.size <= min(l.limit(), maxDelivery) {
		l.part.data = append(l.part.data, f.Payload...)
	}
	aborted := codec.Field[bool](f.Fields, 9)
	if more := codec.Field[bool](f.Fields, 5); more && !aborted {
		return
	}
	whole := l.part
	l.part = partial{}
	if aborted {
		return
	}
	if l.taken++; l.taken%(senderCredit/2) == 0 {
		l.replenish()
	}
	cond := c.faults.refusal()
	switch {
	case cond != nil:
	case uint64(len(whole.data)) < whole.size:
		cond = codec.Failure(codec.CondSize, "The received message (delivery-id:%d, size:%d bytes) exceeds the limit (%d bytes) currently allowed on the link.",
			whole.delivery, whole.size, min(l.limit(), maxDelivery))
	default:
		cond = l.accept(whole.data, whole.format)
	}
	if !codec.Field[bool](f.Fields, 4) {
		state := codec.Described{Code: codec.TypeAccepted, Value: []any{}}
		if cond != nil {
			state = codec.Described{Code: codec.TypeRejected, Value: []any{cond.Value()}}
		}
		c.send(l.s.channel, codec.OpDisposition, []any{true, whole.delivery, whole.delivery, true, state}, nil)
	}
}

// batchFormat is the format of a message whose data sections are messages.
const batchFormat = 0x80013700

// accept passes a complete message to the management node, or to the link's entity.
func (l *link) accept(data []byte, format uint32) *codec.Condition {
	if l.manage != nil {
		m := new(amqp.Message)
		if err := m.UnmarshalBinary(data); err != nil {
			return codec.Failure(codec.CondDecode, "%v", err)
		}
		l.respond(m, l.manage(m))
		return nil
	}
	if format != batchFormat {
		return l.put(data)
	}
	batch := new(amqp.Message)
	if err := batch.UnmarshalBinary(data); err != nil {
		return codec.Failure(codec.CondDecode, "%v", err)
	}
	return l.put(batch.Data...)
}

// put sends encoded messages to the link's entity.
func (l *link) put(encoded ...[]byte) *codec.Condition {
	var messages []*codec.Message
	for _, data := range encoded {
		m, err := codec.DecodeMessage(data)
		if err != nil {
			return codec.Failure(codec.CondDecode, "%v", err)
		}
		if cond := m.CheckProperties(); cond != nil {
			return cond
		}
		messages = append(messages, m)
	}
	for _, m := range messages {
		if _, cond := l.s.c.namespace.Send(l.path, m); cond != nil {
			return cond
		}
	}
	return nil
}

// respond sends the answer to a request.
func (l *link) respond(request, response *amqp.Message) {
	to := l.replyLink(request)
	if to == nil {
		return
	}
	response.Properties = new(amqp.MessageProperties)
	if request.Properties != nil {
		response.Properties.CorrelationID = request.Properties.MessageID
	}
	data, err := response.MarshalBinary()
	if err != nil {
		l.s.c.Log.Error("an answer cannot be encoded", "error", err)
		return
	}
	to.answers = append(to.answers, data)
	to.sendAnswers()
}

// replyLink returns the link for the answer to a request: the one that the request names, by its
// target's address or by its own name; otherwise any link that receives from the same node,
// preferably one of the same session.
func (l *link) replyLink(request *amqp.Message) (best *link) {
	name := ""
	if request.Properties != nil && request.Properties.ReplyTo != nil {
		name = *request.Properties.ReplyTo
	}
	rank := 0
	for _, s := range l.s.c.sessions {
		for _, to := range s.links {
			r := 0
			switch {
			case !to.asks || to.detached:
				continue
			case name != "" && to.reply == name:
				r = 4
			case name != "" && to.name == name:
				r = 3
			case strings.EqualFold(to.path, l.path) && s == l.s:
				r = 2
			case strings.EqualFold(to.path, l.path):
				r = 1
			}
			if r > rank {
				best, rank = to, r
			}
		}
	}
	return best
}
