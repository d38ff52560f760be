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
	Open    OpenSender
	Name    string // for people
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
	results chan *result
	ended   chan struct{} // closed by close; in is never closed, since an execution that was given up may still return
	running sync.WaitGroup
}

// lane is one sending goroutine of an output.
type lane struct {
	*Output
	sender Sender
	done   func() error
}

// result is one result that is being sent.
type result struct {
	message triggers.Message
	sent    chan error
}

// NewOutput returns an output, which sends nothing before Start.
func NewOutput(c OutputConfig) *Output {
	return &Output{OutputConfig: c, results: make(chan *result), ended: make(chan struct{})}
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

// sendResult sends the result of a message, in the context of its trace, and returns when the server
// has accepted it.
func (o *Output) sendResult(ctx context.Context, m *triggers.Message, body []byte, about triggers.Properties) error {
	r := &result{message: triggers.Message{Subject: o.Subject, Body: body, OrderingKey: m.OrderingKey, Attributes: outputAttributes(m)}, sent: make(chan error, 1)}
	r.setProperties(about)
	select {
	case o.results <- r:
	case <-o.ended:
		return errOutputEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
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
		var first *result
		select {
		case first = <-o.results:
		case <-o.ended:
			return
		}
		batch := []*result{first}
	more:
		for len(batch) < o.laneBatch() {
			select {
			case r := <-o.results:
				batch = append(batch, r)
			default:
				break more
			}
		}
		taken, err := o.sendBatch(ctx, batch...)
		for _, r := range batch[:taken] {
			r.sent <- nil
		}
		rest := batch[taken:]
		for _, r := range rest {
			if len(batch) > 1 {
				// Any of them may have caused the error, so each is sent separately.
				_, err = o.sendBatch(ctx, r)
			}
			r.sent <- err
		}
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
	return errors.Is(err, triggers.ErrTooLarge) || errors.Is(err, triggers.ErrEncoding)
}
