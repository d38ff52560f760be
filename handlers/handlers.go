// Package handlers defines how a function is run: by Go code in this process, or by one of the
// subpackages, such as workers, a pool of worker processes.
//
// JSON, JSONResult and JSONBatch make Go functions; a Func or a BatchFunc is one. Go functions return
// Reject and RetryAfter errors to choose a verdict, and call Send, Describe and Respond with their
// context. All of these, and Handler, are stable. The other interfaces may change: they are optional for
// a Handler, or implemented by the contexts that the dispatcher passes to it.
//
// The dispatcher (package daemon/internal/dispatch) calls Handle from one goroutine for each
// message in flight, at most as many as it holds slots for, and Close once,
// after the last Handle has returned. A Starter receives its messages from one
// goroutine instead, and returns results later.
package handlers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/drover-run/drover/triggers"
)

// A Handler runs one function.
type Handler interface {
	// Handle runs the function on one message and returns the function's output.
	// The error is the kind of failure: see Reject, RetryAfter, ErrNotTried and
	// LoadError; any other error is a failed attempt. ctx ends at the
	// function's timeout, or at the drain deadline of a stop.
	Handle(ctx context.Context, m *triggers.Message) (output []byte, err error)

	// Close frees the handler's resources.
	Close(ctx context.Context) error
}

// Starter is a Handler that needs no goroutine for a message in flight.
type Starter interface {
	Handler

	// Start starts a Handle, and returns without waiting for its end. The
	// result is passed to the ResultSink.
	Start(ctx context.Context, m *triggers.Message, to ResultSink)
}

// Interruptible is a context that distinguishes the two causes of its end. With a handler that
// enforces Deadline by other means it needs no timer.
type Interruptible interface {
	context.Context

	// OnInterrupt runs f, on its own goroutine, when the context ends before
	// its deadline. stop works like that of context.AfterFunc. OnInterrupt is called once.
	OnInterrupt(f func()) (stop func() bool)
}

// Renewable is the context of an attempt whose timeout can start over. A handler may call Renew
// when a message has waited, before it runs it. The caller must not hold the context's Done.
type Renewable interface {
	context.Context

	// Renew starts the attempt's timeout again, in full length.
	Renew()
}

// ResultSink receives the result of a message passed to a Starter: the results of Handle.
// SetResult is called once, from any goroutine, and does not block.
type ResultSink interface {
	SetResult(output []byte, err error)
}

// Slotted is a Handler that has its own limit of messages in flight. The limit
// is shared with other handlers, and changes when workers start and end.
type Slotted interface {
	Handler
	Slots() *Slots
}

// Func is a function written in Go. It may be called from many goroutines at once; m must not be
// changed. A panic is a failed attempt. Its output is sent to the outputs without a name; Describe
// sets the output's properties, and Send sends to outputs by name.
type Func func(ctx context.Context, m *triggers.Message) (output []byte, err error)

// Funcs are the Go functions of a program, by their names in the
// configuration. There is no other registry.
type Funcs map[string]Func

// Handle makes a Func a Handler.
func (f Func) Handle(ctx context.Context, m *triggers.Message) (output []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			output, err = nil, &Failure{
				Summary: fmt.Sprintf("panic: %v", p),
				Detail:  string(debug.Stack()),
			}
		}
	}()
	return f(ctx, m)
}

// Close does nothing: a Func has no resources.
func (f Func) Close(context.Context) error { return nil }

// Failure is a failed attempt that is described in more than one line.
type Failure struct {
	// Summary is one line, such as "ValueError: no such customer".
	Summary string
	// Detail is the traceback.
	Detail string
}

func (f *Failure) Error() string { return f.Summary }

// ErrNotTried means that the function did not run, or was interrupted for a reason outside
// it: the message is released, without using an attempt.
var ErrNotTried = errors.New("not tried")

// ErrRunAgain is an ErrNotTried whose message should run again at once, with a new
// timeout: its call ended, or timed out, for a reason outside the function.
var ErrRunAgain = fmt.Errorf("%w, and is to run again", ErrNotTried)

// LoadError reports that a function cannot run because its code failed to load. The
// message is released, and the function is disabled until the code is fixed and the
// configuration reloaded.
type LoadError struct {
	// Function is the name in the configuration.
	Function string
	// Summary is one line; Detail the traceback and what to do.
	Summary, Detail string
}

func (e *LoadError) Error() string {
	if e.Function == "" {
		return e.Summary
	}
	return fmt.Sprintf("function %s does not load: %s", e.Function, e.Summary)
}

type rejection struct{ err error }

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

// Reject marks an error as final: the message is dead-lettered at once,
// with err as the reason.
func Reject(err error) error { return &rejection{err} }

// Rejected reports whether err, or an error that it wraps, was made by Reject.
func Rejected(err error) bool {
	var r *rejection
	return errors.As(err, &r)
}

type later struct {
	err   error
	after time.Duration
}

func (l *later) Error() string { return l.err.Error() }
func (l *later) Unwrap() error { return l.err }

// RetryAfter is a failed attempt that is retried after a delay of the function's choice, instead
// of the backoff. A negative delay counts as 0.
func RetryAfter(after time.Duration, err error) error { return &later{err, max(after, 0)} }

// RetryDelay returns the delay that the function requested, if it did.
func RetryDelay(err error) (time.Duration, bool) {
	var l *later
	if errors.As(err, &l) {
		return l.after, true
	}
	return 0, false
}
