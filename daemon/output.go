package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/drover-run/drover/configs"
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

// openSender reaches where messages go; done ends it.
type openSender func(ctx context.Context) (to sender, done func() error, err error)

// maxOutputs is how many results go out together at most.
const maxOutputs = 500

// output sends what a function returns, before the message is done. Where the
// other side takes many at once there is one lane, and what comes in the meantime
// goes out together; else each lane sends one by one.
type output struct {
	open     openSender
	describe string // for people
	at       entity // for traces
	subject  string // for NATS
	lanes    int
	in       chan *result
	ended    chan struct{} // closed when no more is sent: in is not, as a turn that was given up may still come
	log      *slog.Logger
}

// lane is one goroutine's part of an output.
type lane struct {
	*output
	to   sender
	done func() error
}

// result is one that is on its way.
type result struct {
	message triggers.Message
	sent    chan error
}

func newOutput(open openSender, to configs.Output, lanes int, log *slog.Logger) *output {
	o := &output{open: open, describe: to.String(), at: destinationOf(to), lanes: lanes, in: make(chan *result), ended: make(chan struct{}), log: log}
	if to.NATS != nil {
		o.subject = to.NATS.Subject
	}
	return o
}

// batch is how many results a lane sends together at most.
func (o *output) batch() int {
	if o.lanes > 1 {
		return 1
	}
	return maxOutputs
}

// errOutputEnded is what becomes of results after the end.
var errOutputEnded = errors.New("the output has ended")

// put sends the result of a message, in the context of its trace, and returns when
// the other side has it.
func (o *output) put(ctx context.Context, m *triggers.Message, body []byte, about triggers.Properties) error {
	r := &result{message: triggers.Message{Subject: o.subject, Body: body, OrderingKey: m.OrderingKey, Attributes: passedOn(m)}, sent: make(chan error, 1)}
	r.describe(about)
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

// describe gives a result the properties that its function gave it.
func (r *result) describe(about triggers.Properties) {
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

// run sends until the output has ended.
func (o *lane) run(ctx context.Context) {
	defer o.leave()
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
		taken, err := o.send(ctx, batch...)
		for _, r := range batch[:taken] {
			r.sent <- nil
		}
		rest := batch[taken:]
		for _, r := range rest {
			if len(batch) > 1 {
				// Any of them may be to blame for the error, so that each is sent on its own.
				_, err = o.send(ctx, r)
			}
			r.sent <- err
		}
	}
}

// send sends a batch, and returns how many the other side has taken for certain, from the first
// on. There is an error unless it has all of them.
func (o *lane) send(ctx context.Context, batch ...*result) (taken int, err error) {
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
		o.leave() // the next one begins anew, with a secret that may have changed
	}
	return taken, err
}

// leave closes the sender.
func (o *lane) leave() {
	if o.to == nil {
		return
	}
	if err := o.done(); err != nil {
		o.log.Debug("closing an output", "error", err)
	}
	o.to = nil
}

// emit sends a function's result to all outputs: a message whose result is not
// everywhere is not done. What is unfit for one is not waited for elsewhere; others
// may have taken it already.
func (f *function) emit(t *turn) error {
	if len(f.outputs) == 1 {
		return f.emitTo(f.working, f.outputs[0], t)
	}
	ctx, cancel := context.WithCancel(f.working)
	defer cancel()
	errs := make([]error, len(f.outputs))
	var all sync.WaitGroup
	for i, o := range f.outputs {
		all.Go(func() {
			if errs[i] = f.emitTo(ctx, o, t); errs[i] != nil {
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

// emitTo sends a result to one output, for as long as that cannot take it.
func (f *function) emitTo(ctx context.Context, o *output, t *turn) (err error) {
	m, sent := t.trail.send(o, t.message, len(t.output))
	defer func() { sent.end(err) }()
	pause, failing := receiveBackOff(), ""
	defer func() {
		if failing != "" {
			f.stuck.free(exit{t, o.describe})
		}
	}()
	for {
		err := o.put(ctx, m, t.output, t.about)
		switch {
		case err == nil:
			return nil
		case unfit(err):
			return handlers.Reject(fmt.Errorf("the result, to %s: %w", o.describe, err))
		case ctx.Err() != nil, errors.Is(err, errOutputEnded):
			return fmt.Errorf("its result was not sent to %s: %w", o.describe, handlers.ErrNotTried)
		}
		if failing != err.Error() {
			failing = err.Error()
			f.log.Warn("cannot send a result; will try until it works", "message", m.ID, "to", o.describe, "error", err)
		}
		f.stuck.hold(exit{t, o.describe}, snag{err: err})
		wait(ctx, pause.NextBackOff())
	}
}

// unfit reports whether a message can never be sent.
func unfit(err error) bool {
	return errors.Is(err, triggers.ErrTooLarge) || errors.Is(err, triggers.ErrEncoding)
}
