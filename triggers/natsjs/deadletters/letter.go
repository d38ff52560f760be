package deadletters

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/convert"
)

// This file has the form of dead letters: the original body, and the reason in headers.

// Rejected is a message to be copied to the dead-letter stream.
type Rejected struct {
	Message  *triggers.Message
	Headers  nats.Header // as received
	Sequence uint64
	// ID is always the same for a message: after a crash between the copy and the settlement, the
	// server drops the second copy by this ID.
	ID      string
	Verdict triggers.Verdict
}

// newLetter returns the dead letter of a message of a stream. It has the verdict's detail and the
// message's headers only if they are requested.
func newLetter(r Rejected, stream, deadLetters string, detail, headers bool) *nats.Msg {
	m := r.Message
	out := nats.NewMsg(deadLetters + "." + m.Subject)
	out.Data = m.Body
	if headers {
		for name, values := range convert.AsSent(r.Headers) {
			if strings.HasPrefix(name, convert.ServerHeaders) {
				name = convert.OriginalHeaders + name
			}
			out.Header[name] = values
		}
	} else {
		out.Header.Set("Drover-Note", "the original headers were left out: they did not fit max_payload")
	}
	set := func(name, value string) { out.Header["Drover-"+name] = []string{value} }
	set("Function", r.Verdict.Function)
	set("Error", convert.OneLine(r.Verdict.Reason, 1024))
	set("Attempts", strconv.Itoa(m.Attempt))
	set("Subject", m.Subject)
	set("Stream", stream)
	set("Sequence", strconv.FormatUint(r.Sequence, 10))
	set("Message-Id", m.ID)
	set("Enqueued", m.Enqueued.UTC().Format(time.RFC3339Nano))
	set("Rejected", time.Now().UTC().Format(time.RFC3339Nano))
	if detail && r.Verdict.Detail != "" {
		// A header holds no line breaks; this is a JSON string.
		set("Traceback", quoteEnd(r.Verdict.Detail, 16<<10))
	}
	out.Header.Set(jetstream.MsgIDHeader, r.ID)
	return out
}

// quoteEnd returns the last n bytes of a text as a JSON string.
func quoteEnd(text string, n int) string {
	if len(text) > n {
		text = "..." + text[len(text)-n:] // the end of a traceback is the most useful part
	}
	out, err := json.Marshal(text)
	if err != nil {
		return `""` // a string always has a JSON form
	}
	return string(out)
}

// cutLetter shortens a dead letter's body so that it fits into limit bytes, and records the
// original length in a header. It returns false if the headers alone are too large.
func cutLetter(dead *nats.Msg, limit int64) bool {
	whole := len(dead.Data)
	dead.Header[bodyLengthHeader] = []string{strconv.Itoa(whole)}
	dead.Header["Drover-Note"] = []string{fmt.Sprintf("the original headers were left out, and the body of %d bytes was cut: they did not fit the server's limit; it cannot be replayed", whole)}
	over := int64(dead.Size()) - limit
	if over > int64(whole) {
		return false
	}
	dead.Data = dead.Data[:int64(whole)-max(over, 0)]
	return true
}

// bodyLengthHeader has the original length of a body that was cut.
const bodyLengthHeader = "Drover-Body-Length"

func headerOr(h nats.Header, name, without string) string {
	if v := h.Get(name); v != "" {
		return v
	}
	return without
}

// ownHeaders are the headers added by newLetter.
var ownHeaders = map[string]bool{
	"Drover-Function": true, "Drover-Error": true, "Drover-Attempts": true, "Drover-Subject": true, "Drover-Stream": true,
	"Drover-Sequence": true, "Drover-Message-Id": true, "Drover-Enqueued": true, "Drover-Rejected": true, "Drover-Traceback": true, "Drover-Note": true, bodyLengthHeader: true,
}

// parseLetter parses a dead letter written by newLetter. Other programs may write to the stream, too.
func parseLetter(m *jetstream.RawStreamMsg, cfg Config) triggers.DeadLetter {
	h := m.Header
	out := triggers.DeadLetter{
		ID:       strconv.FormatUint(m.Sequence, 10),
		Reason:   h.Get("Drover-Error"),
		Function: h.Get("Drover-Function"),
		Died:     timeOr(h.Get("Drover-Rejected"), m.Time),
		Own:      m,
		Message: triggers.Message{
			ID: h.Get("Drover-Message-Id"), Body: m.Data, Enqueued: timeOr(h.Get("Drover-Enqueued"), time.Time{}),
			Subject: headerOr(h, "Drover-Subject", strings.TrimPrefix(m.Subject, cfg.DeadLetters+".")),
		},
	}
	if cfg.OrderingToken > 0 {
		out.Message.OrderingKey = convert.TokenOf(out.Message.Subject, cfg.OrderingToken)
	}
	if n, err := strconv.Atoi(h.Get("Drover-Attempts")); err == nil {
		out.Message.Attempt = n
	}
	if text := h.Get("Drover-Traceback"); json.Unmarshal([]byte(text), &out.Detail) != nil {
		out.Detail = text // not written by drover
	}
	if note := h.Get("Drover-Note"); note != "" {
		out.Detail = strings.TrimSpace(out.Detail + "\n" + note)
	}
	for name, values := range h {
		if ownHeaders[name] || strings.HasPrefix(name, convert.ServerHeaders) || len(values) == 0 {
			continue // a header of the dead letter
		}
		if out.Message.Attributes == nil {
			out.Message.Attributes = make(map[string]string, len(h))
		}
		convert.AddAttribute(&out.Message, strings.TrimPrefix(name, convert.OriginalHeaders), values)
	}
	return out
}

func timeOr(text string, without time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at
	}
	return without
}

// replayID returns the ID of a dead letter's copy. It is always the same, so the server drops a
// second copy within the stream's duplicate window. It includes the time, because a recreated
// stream numbers its messages from 1 again.
func replayID(m *jetstream.RawStreamMsg, cfg Config) string {
	return fmt.Sprintf("drover.replay.%s.%d.%d", cfg.DeadLetters, m.Sequence, m.Time.UnixNano())
}

// CopyOf returns the original message of a dead letter, as Replay publishes it. It omits headers that
// affect publishing, such as expected sequences. It keeps only the time to live, counted from now,
// and only if expires is set: streams without support for it refuse such a message. It is exported
// for tests, which publish it as a replay does that is killed before it removes the dead letter.
func CopyOf(l triggers.DeadLetter, cfg Config, expires bool) *nats.Msg {
	m := l.Own.(*jetstream.RawStreamMsg)
	out := nats.NewMsg(l.Message.Subject)
	out.Data = m.Data
	for name, values := range m.Header {
		if !ownHeaders[name] && !strings.HasPrefix(name, convert.ServerHeaders) && !strings.HasPrefix(name, convert.OriginalHeaders+convert.ServerHeaders) {
			out.Header[name] = values
		}
	}
	if own := m.Header[convert.OriginalHeaders+jetstream.MsgIDHeader]; len(own) > 0 {
		out.Header[convert.OriginalHeaders+jetstream.MsgIDHeader] = own
	}
	if ttl := m.Header[convert.OriginalHeaders+jetstream.MsgTTLHeader]; len(ttl) > 0 && expires {
		out.Header[jetstream.MsgTTLHeader] = ttl
	}
	if l.Message.ID != "" {
		out.Header[convert.ReplayedID] = []string{l.Message.ID}
	} else {
		out.Header[convert.ReplayedID] = []string{cfg.DeadLetters + ":" + l.ID}
	}
	out.Header.Set(jetstream.MsgIDHeader, replayID(m, cfg))
	return out
}
