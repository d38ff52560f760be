package emulator

import (
	"strings"

	"github.com/Azure/go-amqp"
)

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
		l.s.c.e.options.Log.Error("an answer cannot be encoded", "error", err)
		return
	}
	to.answers = append(to.answers, data)
	to.sendAnswers()
}

// replyLink is the link that a request's answer goes to: the one that the request
// names, by its target's address or by its own name, or else any that receives
// from the same node, one of the same session first.
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

// maxAnswers bounds the answers to one that asks and does not listen.
const maxAnswers = 10_000

// sendAnswers sends as many answers as the credit allows.
func (l *link) sendAnswers() {
	for len(l.answers) > 0 && l.canTake() {
		l.transmit(wireTag(newUUID()), l.answers[0])
		l.answers = l.answers[1:]
	}
	if len(l.answers) > maxAnswers {
		l.answers = nil
	}
}
