package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/drover-run/drover/triggers"
)

// Sender sends messages in batches. It is used by one goroutine.
type Sender interface {
	Send(ctx context.Context, m *triggers.Message) error
	Flush(ctx context.Context) error
	// ConfirmedCount returns how many messages the server has confirmed. If a lane sends several at
	// once, it confirms them in their order.
	ConfirmedCount() int64
}

// OpenSender opens a sender to a destination; done closes it.
type OpenSender func(ctx context.Context) (to Sender, done func() error, err error)

// maxOutputs is the maximum number of results in one batch.
const maxOutputs = 500

// OutputConfig is the destination of results.
type OutputConfig struct {
	Open OpenSender
	// Key is the name to which a function sends; empty: the output gets the plain result.
	Key     string
	Name    string // for messages and logs
	Entity  Entity // for traces
	Subject string // of each message; may be empty
	// Lanes is how many results are sent at once, each on its own. With one lane, results that
	// arrive during a send are sent together.
	Lanes int
	Log   *slog.Logger
}

// Output sends the results of a function, before their messages are done. Start is called once;
// Function.Close closes the output.
type Output struct {
	OutputConfig
	results chan []result // the results of one call, in order
	ended   chan struct{} // closed by closeLanes; results is never closed, since an execution that was given up may still return
	running sync.WaitGroup
}

// lane is one sending goroutine of an output.
type lane struct {
	*Output
	sender Sender
	done   func() error
}

// result is one message that is being sent. The results of one call share the channel, which has
// room for all of their errors, in order. If one fails, those after it are not sent.
type result struct {
	message triggers.Message
	sent    chan error
}

// NewOutput returns an output, which sends nothing before Start.
func NewOutput(c OutputConfig) *Output {
	return &Output{OutputConfig: c, results: make(chan []result), ended: make(chan struct{})}
}

// Start starts the lanes, which send until the output is closed. ctx is the parent of each send's
// context: it should outlive the function.
func (o *Output) Start(ctx context.Context) {
	for range o.Lanes {
		o.running.Go(func() { (&lane{Output: o}).sendAll(ctx) })
	}
}

// closeLanes stops sending, and returns when the senders are closed.
func (o *Output) closeLanes() {
	close(o.ended)
	o.running.Wait()
}

// laneBatch returns the maximum number of results that a lane sends together.
func (o *Output) laneBatch() int {
	if o.Lanes > 1 {
		return 1
	}
	return maxOutputs
}

// errOutputEnded is the error of results after the output was closed.
var errOutputEnded = errors.New("the output has ended")

// sendResults sends what a function returned for a message, in the context of the message's trace, and
// returns when the server has accepted it. If it has not accepted all, accepted is the number of
// those before the first that failed, and err is the error of that one.
func (o *Output) sendResults(ctx context.Context, m *triggers.Message, all []outgoing) (accepted int, err error) {
	results, sent := make([]result, len(all)), make(chan error, len(all))
	for i, each := range all {
		r := &results[i]
		r.message, r.sent = triggers.Message{Subject: o.Subject, Body: each.body, OrderingKey: m.OrderingKey, Attributes: outputAttributes(m)}, sent
		r.setProperties(each.about)
	}
	select {
	case o.results <- results:
	case <-o.ended:
		return 0, errOutputEnded
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for accepted < len(all) {
		select {
		case err := <-sent:
			if err != nil {
				return accepted, err
			}
			accepted++
		case <-ctx.Done():
			return accepted, ctx.Err()
		}
	}
	return accepted, nil
}

// setProperties sets the properties that the function gave the result.
func (r *result) setProperties(about triggers.Properties) {
	if len(about) == 0 {
		return
	}
	m := &r.message
	m.Origin = triggers.Known(about)
	m.ID = about[triggers.MessageID]
	if session, given := about[triggers.SessionID]; given {
		m.OrderingKey = session
	}
	for name, value := range about {
		if name, ok := strings.CutPrefix(name, triggers.AttributePrefix); ok {
			if m.Attributes == nil {
				m.Attributes = make(map[string]string)
			}
			m.Attributes[name] = value
		}
	}
}

// outputAttributes returns the attributes of a message that its result gets, too: the trace.
func outputAttributes(m *triggers.Message) map[string]string {
	if len(m.Attributes) == 0 {
		return nil
	}
	parent, state := m.Trace()
	var out map[string]string
	for _, a := range [...]struct{ name, value string }{{"traceparent", parent}, {"tracestate", state}, {"baggage", m.Attributes["baggage"]}} {
		if a.value == "" {
			continue
		}
		if out == nil {
			out = make(map[string]string)
		}
		out[a.name] = a.value
	}
	return out
}

// sendAll sends until the output is closed.
func (o *lane) sendAll(ctx context.Context) {
	defer o.closeSender()
	for {
		var first []result
		select {
		case first = <-o.results:
		case <-o.ended:
			return
		}
		batch := appendResults(make([]*result, 0, 1), first)
	more:
		for len(batch) < o.laneBatch() {
			select {
			case next := <-o.results:
				batch = appendResults(batch, next)
			default:
				break more
			}
		}
		var failed failedCall
		for len(batch) > 0 {
			n := min(len(batch), o.laneBatch())
			o.sendPart(ctx, batch[:n], &failed)
			batch = batch[n:]
		}
	}
}

func appendResults(batch []*result, of []result) []*result {
	for i := range of {
		batch = append(batch, &of[i])
	}
	return batch
}

// failedCall is the call whose result failed last: the results after it are not sent.
type failedCall struct {
	sent chan error
	err  error
}

// sendPart sends a batch, and passes on how each result ended. A call that has failed fails all of its
// later results.
func (o *lane) sendPart(ctx context.Context, part []*result, failed *failedCall) {
	for len(part) > 0 && part[0].sent == failed.sent {
		part[0].sent <- failed.err
		part = part[1:]
	}
	if len(part) == 0 {
		return
	}
	taken, err := o.sendBatch(ctx, part...)
	for _, r := range part[:taken] {
		r.sent <- nil
	}
	for _, r := range part[taken:] {
		switch {
		case r.sent == failed.sent:
			err = failed.err
		case len(part) > 1:
			// Any of them may have caused the error, so each is sent separately.
			_, err = o.sendBatch(ctx, r)
		}
		if err != nil {
			failed.sent, failed.err = r.sent, err
		}
		r.sent <- err
	}
}

// sendBatch sends a batch, and returns how many results the server has accepted for certain,
// counted from the first. The error is nil only if it has accepted all.
func (o *lane) sendBatch(ctx context.Context, batch ...*result) (taken int, err error) {
	if o.sender == nil {
		if o.sender, o.done, err = o.Open(ctx); err != nil {
			o.sender = nil
			return 0, err
		}
	}
	before := o.sender.ConfirmedCount()
	for _, r := range batch {
		if err = o.sender.Send(ctx, &r.message); err != nil {
			break
		}
	}
	if err == nil || isUnsendable(err) {
		// Results before one that cannot be sent arrive, and must not be sent again.
		if flushed := o.sender.Flush(ctx); err == nil || flushed != nil && !isUnsendable(flushed) {
			err = flushed
		}
	}
	if err == nil {
		return len(batch), nil
	}
	taken = min(int(o.sender.ConfirmedCount()-before), len(batch)-1)
	if !isUnsendable(err) {
		o.closeSender() // the next send opens a new sender, with a secret that may have changed
	}
	return taken, err
}

// closeSender closes the sender.
func (o *lane) closeSender() {
	if o.sender == nil {
		return
	}
	if err := o.done(); err != nil {
		o.Log.Debug("closing an output", "error", err)
	}
	o.sender = nil
}

// isUnsendable reports whether a message can never be sent.
func isUnsendable(err error) bool {
	return errors.Is(err, triggers.ErrTooLarge) || errors.Is(err, triggers.ErrEncoding) || errors.Is(err, triggers.ErrProperty)
}
