// Package produce sends messages to the sources of functions, for the admin API. A Registry has a
// Producer for each open function. The daemon adds them when it opens a configuration, and closes
// the Registry when another configuration has replaced it. Any goroutine may call a Producer.
package produce

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

// ErrClosed is the error of sending to a Producer that a reload has closed and replaced.
var ErrClosed = errors.New("the function was reloaded; send the message again")

// Config describes the destination of a Producer.
type Config struct {
	Function string
	Source   sources.Inlet
	// Given is the function's trigger from the program; nil: Source is used.
	Given   triggers.Trigger
	MaxBody int64 // the function's limit, in bytes; 0: none
}

// Producer sends messages to the source of one function, one at a time. It opens its sender for the first
// message.
type Producer struct {
	cfg  Config
	turn chan struct{} // holds one value: the right to send

	sender dispatch.Sender // nil: none is open
	done   func() error    // closes it
	closed bool
}

// New returns a Producer.
func New(cfg Config) *Producer {
	p := &Producer{cfg: cfg, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

// cannotSend returns why no messages can be sent to the function, as a predicate of the function; empty
// if they can.
func (p *Producer) cannotSend() string {
	_, enqueues := p.cfg.Given.(triggers.Enqueuer)
	switch {
	case p.cfg.Given != nil && !enqueues:
		return "receives from a trigger of the program, which does not accept messages"
	case p.cfg.Given == nil && p.cfg.Source.Open == nil:
		return p.cfg.Source.CannotSend
	}
	return ""
}

// lastID is a sender that reports the ID of a message.
type lastID interface{ LastID() string }

// Send sends a message, and returns when the source has accepted it. id is the message's ID, as the
// function will get it; empty if it is not known yet.
func (p *Producer) Send(ctx context.Context, m *triggers.Message) (id string, err error) {
	if own, ok := p.cfg.Given.(triggers.Enqueuer); ok {
		return own.Enqueue(ctx, m)
	}
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if p.closed {
		return "", ErrClosed
	}
	if p.sender == nil {
		if p.sender, p.done, err = p.cfg.Source.Open(ctx); err != nil {
			p.sender = nil
			return "", err
		}
	}
	reports, ok := p.sender.(lastID)
	if !ok && m.ID == "" {
		with := *m
		with.ID = uuid.NewString()
		m = &with
	}
	if err = p.sender.Send(ctx, m); err == nil {
		err = p.sender.Flush(ctx)
	}
	switch {
	case isSendersFault(err):
		return "", err
	case err != nil: // the next message gets a new sender, because the secret may have changed
		return "", errors.Join(err, p.closeSender())
	case ok:
		return reports.LastID(), nil
	}
	return m.ID, nil
}

// isSendersFault reports whether a message can never be sent.
func isSendersFault(err error) bool {
	return errors.Is(err, triggers.ErrProperty) || errors.Is(err, triggers.ErrTooLarge) || errors.Is(err, triggers.ErrEncoding)
}

func (p *Producer) closeSender() error {
	if p.sender == nil {
		return nil
	}
	p.sender = nil
	return p.done()
}

// Close closes the sender, after the message that is being sent.
func (p *Producer) Close() error {
	<-p.turn
	defer func() { p.turn <- struct{}{} }()
	p.closed = true
	if err := p.closeSender(); err != nil {
		return fmt.Errorf("closing the sender to function %s: %w", p.cfg.Function, err)
	}
	return nil
}

// Registry has the producers of one configuration, by function. The zero value is empty.
type Registry struct {
	mu  sync.Mutex
	all map[string]*Producer
}

// Add adds the producer of a function.
func (r *Registry) Add(p *Producer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[string]*Producer)
	}
	r.all[p.cfg.Function] = p
}

// Lookup returns the producer of a function; nil if it is not open.
func (r *Registry) Lookup(function string) *Producer {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[function]
}

// Close closes all producers except those that are also in keep, which may be nil.
func (r *Registry) Close(keep *Registry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for name, p := range r.all {
		if keep.Lookup(name) != p {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}
