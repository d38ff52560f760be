package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// sender takes messages, many at a time.
type sender interface {
	Send(ctx context.Context, m *triggers.Message) error
	Flush(ctx context.Context) error
	// Taken is how many messages the other side has confirmed. Where a lane sends several at
	// a time, it confirms them in their order.
	Taken() int64
}

// openSender connects to where messages go; done closes the sender.
type openSender func(ctx context.Context) (to sender, done func() error, err error)

// maxOutputs is how many results are sent together at most.
const maxOutputs = 500

// outputConfig is where results go.
type outputConfig struct {
	open    openSender
	name    string // for people
	at      entity // for traces
	subject string // of each message; empty: none
	// lanes is how many results are sent at once, each on its own. With one lane, those that
	// come while others are being sent go together.
	lanes int
	log   *slog.Logger
}

// output sends what a function returns, before the message is done. start and close are
// called once each, deliver from many goroutines.
type output struct {
	outputConfig
	in      chan *result
	ended   chan struct{} // closed by close: in is not, since an execution that was given up may still return
	running sync.WaitGroup
}

// lane is one goroutine's part of an output.
type lane struct {
	*output
	to   sender
	done func() error
}

// result is one that is being sent.
type result struct {
	message triggers.Message
	sent    chan error
}

func newOutput(c outputConfig) *output {
	return &output{outputConfig: c, in: make(chan *result), ended: make(chan struct{})}
}

// start starts the lanes. They send until the output is closed; ctx bounds single sends.
func (o *output) start(ctx context.Context) {
	for range o.lanes {
		o.running.Go(func() { (&lane{output: o}).sendAll(ctx) })
	}
}

// close has no more results sent, and returns when the senders are closed.
func (o *output) close() {
	close(o.ended)
	o.running.Wait()
}

// batch is how many results a lane sends together at most.
func (o *output) batch() int {
	if o.lanes > 1 {
		return 1
	}
	return maxOutputs
}

// errOutputEnded is the error of results after the output was closed.
var errOutputEnded = errors.New("the output has ended")

// deliver sends the result of a message, in the context of its trace, and returns when
// the other side has it.
func (o *output) deliver(ctx context.Context, m *triggers.Message, body []byte, about triggers.Properties) error {
	r := &result{message: triggers.Message{Subject: o.subject, Body: body, OrderingKey: m.OrderingKey, Attributes: passedOn(m)}, sent: make(chan error, 1)}
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
		if o.to, o.done, err = o.open(ctx); err != nil {
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
		o.log.Debug("closing an output", "error", err)
	}
	o.to = nil
}

// sendOutputs sends an execution's result to all outputs: a message whose result is not
// everywhere is not done. If a result can never be sent to one of them, the others are
// not waited for; they may have taken it already.
func (x *execution) sendOutputs() error {
	f := x.f
	if len(f.outputs) == 1 {
		return x.sendTo(f.working, f.outputs[0])
	}
	ctx, cancel := context.WithCancel(f.working)
	defer cancel()
	errs := make([]error, len(f.outputs))
	var all sync.WaitGroup
	for i, o := range f.outputs {
		all.Go(func() {
			if errs[i] = x.sendTo(ctx, o); errs[i] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	var failed error
	for _, err := range errs {
		if failed == nil || handlers.Rejected(err) {
			failed = err
		}
	}
	return failed
}

// sendTo sends the result to one output, and tries again until that takes it, or can
// never take it, or ctx ends.
func (x *execution) sendTo(ctx context.Context, o *output) (err error) {
	f := x.f
	m, sent := x.trail.startSend(&o.at, x.message, len(x.output))
	defer func() { sent.endSend(err) }()
	pause, failing := receiveBackOff(), ""
	defer func() {
		if failing != "" {
			f.stuck.remove(exit{x.delivery, o.name})
		}
	}()
	for {
		err := o.deliver(ctx, m, x.output, x.about)
		switch {
		case err == nil:
			return nil
		case unfit(err):
			return handlers.Reject(fmt.Errorf("the result, to %s: %w", o.name, err))
		case ctx.Err() != nil, errors.Is(err, errOutputEnded):
			return fmt.Errorf("its result was not sent to %s: %w", o.name, handlers.ErrNotTried)
		}
		if failing != err.Error() {
			failing = err.Error()
			f.log.Warn("cannot send a result; will try until it works", "message", m.ID, "to", o.name, "error", err)
		}
		f.stuck.hold(exit{x.delivery, o.name}, blockage{err: err})
		wait(ctx, pause.NextBackOff())
	}
}

// unfit reports whether a message can never be sent.
func unfit(err error) bool {
	return errors.Is(err, triggers.ErrTooLarge) || errors.Is(err, triggers.ErrEncoding)
}
