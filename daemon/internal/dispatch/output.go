package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/drover-run/drover/triggers"
)

// Sender takes messages, many at a time. It is used by one goroutine.
type Sender interface {
	Send(ctx context.Context, m *triggers.Message) error
	Flush(ctx context.Context) error
	// Taken is how many messages the other side has confirmed. Where a lane sends several at
	// a time, it confirms them in their order.
	Taken() int64
}

// OpenSender connects to where messages go; done closes the sender.
type OpenSender func(ctx context.Context) (to Sender, done func() error, err error)

// maxOutputs is how many results are sent together at most.
const maxOutputs = 500

// OutputConfig is where results go.
type OutputConfig struct {
	Open    OpenSender
	Name    string // for people
	Entity  Entity // for traces
	Subject string // of each message; empty: none
	// Lanes is how many results are sent at once, each on its own. With one lane, those that
	// come while others are being sent go together.
	Lanes int
	Log   *slog.Logger
}

// Output sends what a function returns, before the message is done. Start is called once;
// Function.Close closes it.
type Output struct {
	OutputConfig
	in      chan *result
	ended   chan struct{} // closed by close: in is not, since an execution that was given up may still return
	running sync.WaitGroup
}

// lane is one goroutine's part of an output.
type lane struct {
	*Output
	to   Sender
	done func() error
}

// result is one that is being sent.
type result struct {
	message triggers.Message
	sent    chan error
}

// NewOutput makes an output, which sends nothing before Start.
func NewOutput(c OutputConfig) *Output {
	return &Output{OutputConfig: c, in: make(chan *result), ended: make(chan struct{})}
}

// Start starts the lanes, which send until the output is closed. ctx is that of single sends: it
// should outlive whatever ends the function.
func (o *Output) Start(ctx context.Context) {
	for range o.Lanes {
		o.running.Go(func() { (&lane{Output: o}).sendAll(ctx) })
	}
}

// closeLanes has no more results sent, and returns when the senders are closed.
func (o *Output) closeLanes() {
	close(o.ended)
	o.running.Wait()
}

// batch is how many results a lane sends together at most.
func (o *Output) batch() int {
	if o.Lanes > 1 {
		return 1
	}
	return maxOutputs
}

// errOutputEnded is the error of results after the output was closed.
var errOutputEnded = errors.New("the output has ended")

// deliver sends the result of a message, in the context of its trace, and returns when
// the other side has it.
func (o *Output) deliver(ctx context.Context, m *triggers.Message, body []byte, about triggers.Properties) error {
	r := &result{message: triggers.Message{Subject: o.Subject, Body: body, OrderingKey: m.OrderingKey, Attributes: passedOn(m)}, sent: make(chan error, 1)}
	r.setProperties(about)
	select {
	case o.in <- r:
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

// setProperties gives a result the properties that its function gave it.
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

// passedOn are the attributes of a message that its result has, too: the trace.
func passedOn(m *triggers.Message) map[string]string {
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

// sendAll sends until the output has ended.
func (o *lane) sendAll(ctx context.Context) {
	defer o.closeSender()
	for {
		var first *result
		select {
		case first = <-o.in:
		case <-o.ended:
			return
		}
		batch := []*result{first}
	more:
		for len(batch) < o.batch() {
			select {
			case r := <-o.in:
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
				// Any of them may be to blame for the error, so that each is sent on its own.
				_, err = o.sendBatch(ctx, r)
			}
			r.sent <- err
		}
	}
}

// sendBatch sends a batch, and returns how many the other side has taken for certain, from the first
// on. There is an error unless it has all of them.
func (o *lane) sendBatch(ctx context.Context, batch ...*result) (taken int, err error) {
	if o.to == nil {
		if o.to, o.done, err = o.Open(ctx); err != nil {
			o.to = nil
			return 0, err
		}
	}
	before := o.to.Taken()
	for _, r := range batch {
		if err = o.to.Send(ctx, &r.message); err != nil {
			break
		}
	}
	if err == nil || unfit(err) {
		// What was sent before one that is unfit arrives, and is not to be sent again.
		if flushed := o.to.Flush(ctx); err == nil || flushed != nil && !unfit(flushed) {
			err = flushed
		}
	}
	if err == nil {
		return len(batch), nil
	}
	taken = min(int(o.to.Taken()-before), len(batch)-1)
	if !unfit(err) {
		o.closeSender() // the next one begins anew, with a secret that may have changed
	}
	return taken, err
}

// closeSender closes the sender.
func (o *lane) closeSender() {
	if o.to == nil {
		return
	}
	if err := o.done(); err != nil {
		o.Log.Debug("closing an output", "error", err)
	}
	o.to = nil
}

// unfit reports whether a message can never be sent.
func unfit(err error) bool {
	return errors.Is(err, triggers.ErrTooLarge) || errors.Is(err, triggers.ErrEncoding)
}
