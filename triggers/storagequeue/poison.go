package storagequeue

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/reasons"
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
	// maxKeptTraceback limits the size of a traceback that is kept for a message in the poison
	// queue.
	maxKeptTraceback = 32 << 10
)

// poisonQueue takes the rejected messages of a queue.
type poisonQueue struct {
	queue    *reach
	source   string // the queue that they are from
	format   PoisonFormat
	encoding Encoding
	reasons  *reasons.Store // nil: they are not kept
	log      *slog.Logger
	troubles *triggers.Troubles
}

// rejected is a message to be copied to the poison queue.
type rejected struct {
	*triggers.Message
	triggers.Verdict
	text     string // as received
	dequeued int64
}

// envelope returns a dead letter. If it is too large, the traceback is cut, and finally
// omitted.
func (p *poisonQueue) envelope(m rejected) (string, error) {
	out := Envelope{
		ID: m.ID, Queue: p.source, Function: m.Function, Error: triggers.Tail(m.Reason, maxReason), Traceback: strings.TrimSpace(m.Detail),
		Attempts: m.Attempt, DequeueCount: m.dequeued, Enqueued: m.Enqueued, Rejected: time.Now().UTC().Truncate(time.Second),
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
		text, err := p.encoding.encode(raw)
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

// copy puts a copy of a message into the poison queue, and creates that queue if it is missing.
// Unlike the message, a dead letter does not expire. A trouble reports that this fails.
func (p *poisonQueue) copy(ctx context.Context, m rejected) error {
	text := m.text
	if p.format == PoisonEnvelope {
		whole, err := p.envelope(m)
		if err == nil {
			text = whole
		} else {
			p.log.Warn("the message does not fit into an envelope; the poison queue gets the body alone", "message", m.ID, "reason", m.Reason, "error", err)
		}
	}
	id, err := p.queue.putOrCreate(ctx, text, 0, forever)
	if err != nil {
		err = fmt.Errorf("the poison queue: %w", err)
	} else if p.reasons != nil && p.format == PoisonBody {
		p.keepReason(id, m)
	}
	if ctx.Err() == nil {
		p.noteDead(err)
	}
	return err
}

// keepReason keeps why a message was rejected, for an operator. Its ID is that in the poison queue.
func (p *poisonQueue) keepReason(id string, m rejected) {
	err := p.reasons.AddReason(p.queue.name, reasons.Reason{
		ID: id, Message: m.ID, Function: m.Function, Error: triggers.Tail(m.Reason, maxReason), Traceback: triggers.Tail(strings.TrimSpace(m.Detail), maxKeptTraceback),
		Attempts: m.Attempt, Enqueued: m.Enqueued, Rejected: time.Now().UTC().Truncate(time.Second),
	})
	if err != nil {
		p.log.Warn("the reason of a rejected message is in the log only", "message", m.ID, "error", err)
	}
}

// noteDead reports a trouble if rejected messages cannot be moved.
func (p *poisonQueue) noteDead(err error) {
	if err == nil {
		p.troubles.Clear(triggers.TroubleDeadLetters)
		return
	}
	p.troubles.Set(triggers.TroubleDeadLetters, fmt.Sprintf("rejected messages cannot be moved to the poison queue %s: %v", p.queue.name, err))
}
