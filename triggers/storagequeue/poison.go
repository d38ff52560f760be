package storagequeue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"

	"github.com/drover-run/drover/triggers"
)

// PoisonFormat is the format of messages in the poison queue.
type PoisonFormat string

// The formats. PoisonBody is the unchanged message, as written by the Azure Functions host.
// PoisonEnvelope is an Envelope.
const (
	PoisonBody     PoisonFormat = "body"
	PoisonEnvelope PoisonFormat = "envelope"
)

// PoisonSuffix ends the name of a poison queue.
const PoisonSuffix = "-poison"

// Envelope is a dead letter: JSON, in the encoding of the queue.
type Envelope struct {
	ID           string    `json:"id"` // in the original queue
	Queue        string    `json:"queue"`
	Function     string    `json:"function,omitempty"`
	Error        string    `json:"error"`
	Traceback    string    `json:"traceback,omitempty"`
	Attempts     int       `json:"attempts"`
	DequeueCount int64     `json:"dequeue_count"`
	Enqueued     time.Time `json:"enqueued"`
	Rejected     time.Time `json:"rejected"`
	// Body is the body if it is text; otherwise BodyBase64 is set.
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
}

const (
	// maxReason bounds the error of an envelope.
	maxReason = 4096
	// shortestTraceback is the shortest traceback that is kept.
	shortestTraceback = 64
)

// envelope returns a dead letter. If it is too large, the traceback is cut, and finally
// omitted.
func (l *leasedMessage) envelope(m *triggers.Message, v triggers.Verdict) (string, error) {
	out := Envelope{
		ID: m.ID, Queue: l.t.queue.name, Function: v.Function, Error: triggers.Tail(v.Reason, maxReason), Traceback: strings.TrimSpace(v.Detail),
		Attempts: m.Attempt, DequeueCount: l.dequeued, Enqueued: m.Enqueued, Rejected: time.Now().UTC().Truncate(time.Second),
	}
	if utf8.Valid(m.Body) {
		out.Body = string(m.Body)
	} else {
		out.BodyBase64 = m.Body
	}
	for {
		raw, err := json.Marshal(out)
		if err != nil {
			return "", err
		}
		text, err := l.t.cfg.Encoding.encode(raw)
		if err == nil || out.Traceback == "" {
			return text, err
		}
		if n := len(out.Traceback) / 2; n >= shortestTraceback {
			out.Traceback = triggers.Tail(out.Traceback, n)
		} else {
			out.Traceback = ""
		}
	}
}

// copyToPoison puts a copy of the message into the poison queue, and creates that queue if it
// is missing. Unlike the message, a dead letter does not expire.
func (l *leasedMessage) copyToPoison(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	text := l.text
	if l.t.cfg.PoisonFormat == PoisonEnvelope {
		whole, err := l.envelope(m, v)
		if err == nil {
			text = whole
		} else {
			l.t.log.Warn("the message does not fit into an envelope; the poison queue gets the body alone", "message", m.ID, "reason", v.Reason, "error", err)
		}
	}
	poison := l.t.poison
	err := poison.put(ctx, text, 0, forever)
	if queueerror.HasCode(err, queueerror.QueueNotFound) {
		if err := poison.make(ctx); err != nil {
			return fmt.Errorf("the poison queue: %w", err)
		}
		err = poison.put(ctx, text, 0, forever)
	}
	if err != nil {
		return fmt.Errorf("the poison queue: %w", err)
	}
	return nil
}

// noteDead reports a trouble if rejected messages cannot be moved.
func (t *trigger) noteDead(err error) {
	if err == nil {
		t.troubles.Clear(triggers.TroubleDeadLetters)
		return
	}
	t.troubles.Set(triggers.TroubleDeadLetters, fmt.Sprintf("rejected messages cannot be moved to the poison queue %s: %v", t.poison.name, err))
}

// reject moves a message to the poison queue: it copies, then deletes it. A crash between the
// two duplicates the message, and never loses it.
func (l *leasedMessage) reject(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	if !l.copied {
		err := l.copyToPoison(ctx, m, v)
		if ctx.Err() == nil {
			l.t.noteDead(err)
		}
		if err != nil {
			return err
		}
		l.copied = true
	}
	return l.remove(ctx)
}

// rejectMisfit moves a message that no function can receive.
func (t *trigger) rejectMisfit(l *leasedMessage) {
	ctx, cancel := context.WithTimeout(t.asking, t.cfg.Lease)
	defer cancel()
	err := l.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Reject, Reason: l.misfit})
	switch {
	case err == nil:
		t.log.Error("message dead-lettered", "message", l.message.ID, "reason", l.misfit)
	case !errors.Is(err, context.Canceled):
		t.log.Error("cannot move a message to the poison queue; will try when it comes again", "message", l.message.ID, "reason", l.misfit, "error", err)
		fallthrough
	default:
		t.untrack(l)
	}
}
