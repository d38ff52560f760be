package natsjs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// leasedMessage is the state of a leased message, in one allocation.
type leasedMessage struct {
	triggers.Delivery
	message triggers.Message
	msg     *nats.Msg
	t       *trigger
	life    *life // of stream and consumer, when it arrived

	delivery   uint64 // the number of this delivery of the consumer
	deliveries uint64 // deliveries of this message, by the server's count
	recorded   int    // failures in the ledger

	ending sync.Mutex // serializes the settlement and renewals
	over   bool       // it was settled; guarded by ending

	renewed    time.Time // the last renewal; guarded by t.mu, as are the links
	prev, next *leasedMessage
}

func newLeasedMessage(t *trigger, m *nats.Msg) (*leasedMessage, error) {
	l := &leasedMessage{t: t, msg: m}
	at, err := parseReply(m.Reply)
	if err != nil {
		return nil, err
	}
	l.deliveries, l.Sequence, l.delivery = at.deliveries, at.sequence, at.delivery
	l.message = triggers.Message{
		Body:     m.Data,
		Attempt:  1,
		Enqueued: time.Unix(0, at.enqueued),
		Subject:  m.Subject,
	}
	identify(&l.message, m.Header, t.cfg.Stream, l.Sequence, t.cfg.OrderingToken)
	l.Init(&l.message, l)
	return l, nil
}

func (l *leasedMessage) place() place { return place{l.Sequence, l.message.Enqueued.UnixNano()} }

// identify sets ID, attributes and ordering key by the message's headers, subject and place in
// its stream.
func identify(m *triggers.Message, headers nats.Header, stream string, sequence uint64, orderingToken int) {
	if len(headers) > 0 {
		m.ID = nameOf(headers)
		headers = asSent(headers)
		m.Attributes = make(map[string]string, len(headers))
		for name, values := range headers {
			attribute(m, name, values)
		}
	}
	if m.ID == "" {
		var room [64]byte
		m.ID = string(strconv.AppendUint(append(append(room[:0], stream...), ':'), sequence, 10))
	}
	if orderingToken > 0 {
		m.OrderingKey = token(m.Subject, orderingToken)
	}
}

// attribute adds the values of a header to a message's attributes.
func attribute(m *triggers.Message, name string, values []string) {
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

// nameOf returns the ID in a message's headers: for a replayed copy that of the original, else the
// one set by the sender; empty if there is none.
func nameOf(h nats.Header) string {
	if id := h.Get(replayedID); id != "" {
		return id
	}
	return h.Get(jetstream.MsgIDHeader)
}

// token returns the n-th token of a subject, counted from 1; empty if it has fewer.
func token(subject string, n int) string {
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

var errReply = errors.New("its reply subject is not that of a JetStream message")

// delivered describes a delivery, as the server reports it.
type delivered struct {
	place
	deliveries uint64 // of the message
	delivery   uint64 // the number of this delivery of the consumer
}

// parseReply parses the subject for acknowledgements:
// $JS.ACK.stream.consumer.deliveries.sequence.consumersequence.time.pending, or,
// in its longer form, with domain and account hash before the stream, and a
// random token at the end (ADR-15). It does not allocate.
func parseReply(reply string) (at delivered, err error) {
	rest, found := strings.CutPrefix(reply, "$JS.ACK.")
	if !found {
		return at, errReply
	}
	names := 2
	if strings.Count(rest, ".") >= 8 {
		names = 4
	}
	for range names {
		if _, rest, found = strings.Cut(rest, "."); !found {
			return at, errReply
		}
	}
	var numbers [4]uint64
	for i := range numbers {
		var number string
		if number, rest, found = strings.Cut(rest, "."); !found {
			return at, errReply
		}
		if numbers[i], err = strconv.ParseUint(number, 10, 64); err != nil {
			return at, errReply
		}
	}
	return delivered{place{numbers[1], int64(numbers[3])}, numbers[0], numbers[2]}, nil
}

// Settle implements triggers.Lease.
func (l *leasedMessage) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	v = l.last(m, v)
	if err := l.carryOut(ctx, m, v); err != nil {
		return fmt.Errorf("settling message %s of stream %s as %v: %w", m.ID, l.t.cfg.Stream, v.Kind, err)
	}
	l.t.untrack(l, v.Kind)
	return nil
}

func (l *leasedMessage) carryOut(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	if v.Kind != triggers.Reject && l.stale() {
		l.t.log.Warn("message settled after its stream or consumer was recreated; nothing to settle at the server",
			"message", m.ID, "verdict", v.Kind, "attempt", m.Attempt)
		return nil
	}
	switch v.Kind {
	case triggers.Done:
		return nil // untrack acknowledges it
	case triggers.Retry:
		l.record(ctx, m.Attempt)
		return l.end(nakAfter(v.Delay))
	case triggers.Release:
		l.record(ctx, m.Attempt-1)
		return l.end(l.releaseReply())
	case triggers.Reject:
		// Copy first, then end the original: a crash between the two loses nothing.
		if err := l.bury(ctx, m, v); err != nil {
			return err
		}
		return l.end([]byte("+TERM " + oneLine(v.Reason, 200)))
	}
	return fmt.Errorf("no such verdict: %d", v.Kind)
}

// end sends a settlement. No renewal is sent after it: that would undo a delay.
func (l *leasedMessage) end(said []byte) error {
	l.ending.Lock()
	defer l.ending.Unlock()
	l.over = true
	return l.t.send(l, said)
}

func nakAfter(delay time.Duration) []byte {
	if delay <= 0 {
		return []byte("-NAK")
	}
	return fmt.Appendf(nil, `-NAK {"delay": %d}`, delay.Nanoseconds())
}

// releaseReply returns the command that releases a message. If the server may stop together with
// its client, the command has a delay, because the server stores only delayed releases.
func (l *leasedMessage) releaseReply() []byte {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.t.ending {
		return release
	}
	return nakAfter(0)
}

// record writes the number of failures to the ledger if it has changed.
func (l *leasedMessage) record(ctx context.Context, failures int) {
	if failures != l.recorded {
		l.t.ledger.put(ctx, l, failures, l.t.log)
		l.recorded = failures
	}
}

// untrack ends the renewal of a settled lease.
func (t *trigger) untrack(l *leasedMessage, kind triggers.Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.life != t.life {
		return
	}
	if l.recorded > 0 && (kind == triggers.Done || kind == triggers.Reject) {
		t.ledger.forget(l)
	}
	t.leases.remove(l)
	t.settled++
	switch kind {
	case triggers.Done, triggers.Reject:
		t.last = repeat{l.msg.Reply, inProgress}
	case triggers.Release:
		t.last = repeat{l.msg.Reply, release}
	default: // repeating a retry would restart its delay
	}
	t.raisePrefetch()
	if kind == triggers.Done {
		t.acks.queueAck(l)
	}
}

// oneLine cuts a text to one line of at most n bytes.
func oneLine(text string, n int) string {
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

// Headers with the prefix natsHeaders would affect the publishing of a copy. The copy has them
// under their name with the prefix originalHeaders.
const (
	natsHeaders     = "Nats-"
	originalHeaders = "Drover-Original-"
)

// bury copies a rejected message to the dead-letter stream, and cuts it if it exceeds the
// server's limits.
func (l *leasedMessage) bury(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	limit := l.t.letterLimit(ctx, false)
	for _, form := range []struct {
		detail, headers, cut bool
	}{{true, true, false}, {false, true, false}, {false, false, false}, {false, false, true}} {
		dead := l.obituary(m, v, form.detail, form.headers)
		dead.Header.Set(jetstream.MsgIDHeader, l.deadID())
		if int64(dead.Size()) > limit && (!form.cut || !cutLetter(dead, limit)) {
			continue
		}
		err := l.t.publishOnce(ctx, dead)
		if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
			if err = l.t.makeGraveyard(ctx); err == nil {
				err = l.t.publishOnce(ctx, dead)
			}
		}
		if hasCode(err, errTooLarge) && !form.cut {
			limit = l.t.letterLimit(ctx, true)
			continue
		}
		if err != nil {
			return fmt.Errorf("copying it to the dead-letter stream %s: %w", l.t.cfg.DeadLetters, err)
		}
		if form.cut {
			l.t.log.Error("the body of a dead letter was cut: it was too large for the server", "message", m.ID, "bytes", len(m.Body), "kept", len(dead.Data), "limit", limit)
		}
		l.t.troubles.Clear(triggers.TroubleDeadLetters)
		return nil
	}
	return fmt.Errorf("a dead letter may have %d bytes, which is too few for its reason; raise max_payload of the server, or max_msg_size of the stream %s", limit, l.t.cfg.DeadLetters)
}

// obituary returns the dead letter: the original body, and the reason in headers.
func (l *leasedMessage) obituary(m *triggers.Message, v triggers.Verdict, detail, headers bool) *nats.Msg {
	out := nats.NewMsg(l.t.cfg.DeadLetters + "." + m.Subject)
	out.Data = m.Body
	if headers {
		for name, values := range asSent(l.msg.Header) {
			if strings.HasPrefix(name, natsHeaders) {
				name = originalHeaders + name
			}
			out.Header[name] = values
		}
	} else {
		out.Header.Set("Drover-Note", "the original headers were left out: they did not fit max_payload")
	}
	set := func(name, value string) { out.Header["Drover-"+name] = []string{value} }
	set("Function", v.Function)
	set("Error", oneLine(v.Reason, 1024))
	set("Attempts", strconv.Itoa(m.Attempt))
	set("Subject", m.Subject)
	set("Stream", l.t.cfg.Stream)
	set("Sequence", strconv.FormatUint(l.Sequence, 10))
	set("Message-Id", m.ID)
	set("Enqueued", m.Enqueued.UTC().Format(time.RFC3339Nano))
	set("Rejected", time.Now().UTC().Format(time.RFC3339Nano))
	if detail && v.Detail != "" {
		// A header holds no line breaks; this is a JSON string.
		set("Traceback", quote(v.Detail, 16<<10))
	}
	return out
}
