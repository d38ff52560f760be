// Package convert turns JetStream messages, also copies that were replayed, into drover's.
package convert

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

const (
	// ServerHeaders is the prefix of headers that affect the publishing of a message.
	ServerHeaders = "Nats-"
	// OriginalHeaders is the prefix under which a copy of a message has those headers.
	OriginalHeaders = "Drover-Original-"
	// ReplayedID is the header with the message's ID in a replayed copy. Under the ID's own header
	// the server would drop the copy as a duplicate of the original.
	ReplayedID = "Drover-Replayed-Id"
	// schedulerHeader and scheduleNextHeader are the headers that the server adds to a scheduled message
	// when it is due.
	schedulerHeader, scheduleNextHeader = "Nats-Scheduler", "Nats-Schedule-Next"
)

// SetIdentity sets ID, attributes and ordering key by the message's headers, subject and place in
// its stream. orderingToken is the position of the subject's token that is the key; 0: none.
func SetIdentity(m *triggers.Message, headers nats.Header, stream string, sequence uint64, orderingToken int) {
	if len(headers) > 0 {
		m.ID = IDOf(headers)
		headers = AsSent(headers)
		m.Attributes = make(map[string]string, len(headers))
		for name, values := range headers {
			AddAttribute(m, name, values)
		}
	}
	if m.ID == "" {
		var room [64]byte
		m.ID = string(strconv.AppendUint(append(append(room[:0], stream...), ':'), sequence, 10))
	}
	if orderingToken > 0 {
		m.OrderingKey = TokenOf(m.Subject, orderingToken)
	}
}

// AddAttribute adds the values of a header to a message's attributes, which are not nil.
func AddAttribute(m *triggers.Message, name string, values []string) {
	if len(values) == 0 {
		return
	}
	m.Attributes[name] = values[0]
	if len(values) > 1 {
		if m.Repeated == nil {
			m.Repeated = make(map[string][]string)
		}
		m.Repeated[name] = values
	}
}

// IDOf returns the ID in a message's headers: for a replayed copy that of the original, else the
// one set by the sender; empty if there is none.
func IDOf(h nats.Header) string {
	if id := h.Get(ReplayedID); id != "" {
		return id
	}
	return h.Get(jetstream.MsgIDHeader)
}

// AsSent returns the headers that the sender set, also for replayed copies and scheduled messages.
func AsSent(h nats.Header) nats.Header {
	replayed := len(h[ReplayedID]) > 0
	if !replayed && len(h[schedulerHeader]) == 0 {
		return h
	}
	out := make(nats.Header, len(h))
	for name, values := range h {
		switch name {
		case schedulerHeader, scheduleNextHeader:
		case ReplayedID, jetstream.MsgIDHeader, jetstream.ExpectedStreamHeader, OriginalHeaders + jetstream.MsgIDHeader:
			if !replayed {
				out[name] = values
			}
		default:
			out[name] = values
		}
	}
	if own := h[OriginalHeaders+jetstream.MsgIDHeader]; len(own) > 0 {
		out[jetstream.MsgIDHeader] = own
	}
	return out
}

// TokenOf returns the n-th token of a subject, counted from 1; empty if it has fewer.
func TokenOf(subject string, n int) string {
	for ; n > 1; n-- {
		_, rest, found := strings.Cut(subject, ".")
		if !found {
			return ""
		}
		subject = rest
	}
	first, _, _ := strings.Cut(subject, ".")
	return first
}

// OneLine cuts a text to one line of at most n bytes.
func OneLine(text string, n int) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text))
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n-3], "") + "..."
	}
	return text
}
