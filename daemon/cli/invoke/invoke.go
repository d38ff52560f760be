// Package invoke runs one message through a function without a queue, for drover invoke. The
// command calls it, from one goroutine.
package invoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// SlotLimit bounds the wait for a slot of an app that accepts no messages yet.
const SlotLimit = 10 * time.Second

// Options are the options of Run.
type Options struct {
	// Options has the configuration of only this function.
	apps.Options
	// Interrupts passes the interrupts of the terminal to a function until stop is called. It is
	// called if options.Terminal is set.
	Interrupts func(to func()) (stop func())
}

// Run runs one message through a function, with its handler and timeout, and reports the verdict. If the
// function did not load or accepts no messages, the verdict is release.
func Run(ctx context.Context, function string, m *triggers.Message, options Options) (out *Report, err error) {
	out = &Report{Message: m.ID, Attempt: m.Attempt}
	f, err := apps.OpenStandalone(ctx, options.Options, function)
	if err != nil {
		var loadError *handlers.LoadError
		if ctx.Err() != nil {
			return nil, errors.New("stopped before the function was loaded")
		}
		if !errors.As(err, &loadError) {
			return nil, err
		}
		out.setResult(triggers.Verdict{Kind: triggers.Release}, nil, err, 0)
		return out, nil
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if options.Terminal != nil {
		defer options.Interrupts(f.Interrupt)()
	}
	source := new(singleSource)
	f.Trigger = source
	f.Log = slog.New(slog.DiscardHandler) // the verdict is in the report
	waiting, cancel := context.WithTimeout(ctx, SlotLimit)
	defer cancel()
	if f.Share.Claim(waiting) != nil {
		out.setResult(triggers.Verdict{Kind: triggers.Release}, nil, fmt.Errorf("the app accepts no messages: %w", handlers.ErrNotTried), 0)
		return out, nil
	}
	r := f.RunOne(ctx, triggers.NewDelivery(m, source))
	out.OutputProperties = r.Properties
	out.addNamed(r.Named)
	out.setResult(source.verdict, r.Output, r.Err, source.settled.Sub(r.Start))
	return out, nil
}

// singleSource is the trigger of a message that comes from no queue. It keeps the verdict.
type singleSource struct {
	verdict triggers.Verdict
	settled time.Time
}

// Settle implements triggers.Lease.
func (s *singleSource) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	s.verdict, s.settled = v, time.Now()
	return nil
}

// Receive implements triggers.Trigger.
func (s *singleSource) Receive(ctx context.Context, _ int) ([]*triggers.Delivery, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Backlog implements triggers.Trigger.
func (s *singleSource) Backlog(context.Context) (triggers.Backlog, error) {
	return triggers.Backlog{}, triggers.ErrUnknown
}

// Close implements triggers.Trigger.
func (s *singleSource) Close(context.Context) error { return nil }

// Session is a session of Service Bus for a single message. Its state is empty at first.
type Session struct {
	mu    sync.Mutex
	state []byte
}

// State implements triggers.Session.
func (s *Session) State(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, nil
}

// SetState implements triggers.Session.
func (s *Session) SetState(_ context.Context, state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	return nil
}
