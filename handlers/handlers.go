// Package handlers holds what runs a function: Go code in this process, or,
// in the subpackage workers, a pool of worker processes.
//
// The dispatcher (package daemon) calls Handle from one goroutine for each
// message in flight, at most as many as it holds slots for, and Close once,
// after the last Handle returned. A Starter is given its messages from one
// goroutine instead, and answers later.
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
	// Handle runs the function on one message and returns what it returned.
	// The error is the kind of failure: see Reject, RetryAfter, ErrNotTried and
	// LoadError; any other error is a failed attempt. ctx ends at the
	// function's timeout, or when a stop's drain deadline has passed.
	Handle(ctx context.Context, m *triggers.Message) (output []byte, err error)

	// Close frees what the handler holds.
	Close(ctx context.Context) error
}

// Starter is a Handler that needs no goroutine for a message in flight.
type Starter interface {
	Handler

	// Start begins what Handle does, and returns without waiting for it. The
	// result goes to the ResultSink.
	Start(ctx context.Context, m *triggers.Message, to ResultSink)
}

// Interruptible is a context that distinguishes the two causes of its end. A handler that
// enforces Deadline by other means needs no timer of it.
type Interruptible interface {
	context.Context

	// OnInterrupt has f run, on a goroutine of its own, when the context ends before
	// its deadline. stop is that of context.AfterFunc. It is called once.
	OnInterrupt(f func()) (stop func() bool)
}

// Renewable is the context of an attempt that can begin anew: by a handler that had its
// message wait, before it runs it, and by nobody who holds its Done.
type Renewable interface {
	context.Context

	// Renew gives the attempt its whole timeout from now on.
	Renew()
}

// ResultSink receives the result of a message that a Starter was given: what Handle
// would have returned. SetResult is called once, from any goroutine, and does not block.
type ResultSink interface {
	SetResult(output []byte, err error)
}

// Slotted is a Handler that has a limit of its own to what can be in flight,
// shared with other handlers, and changing as workers come and go.
type Slotted interface {
	Handler
	Slots() *Slots
}

// Func is a function written in Go. It may be called from many goroutines at
// once; m must not be changed. A panic is a failed attempt.
type Func func(ctx context.Context, m *triggers.Message) (output []byte, err error)

// Funcs are the Go functions that a program offers, by the name that the
// configuration calls them. There is no other registry.
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

// Close does nothing: a Func holds nothing.
func (f Func) Close(context.Context) error { return nil }

// Failure is a failed attempt with more to tell than fits a line.
type Failure struct {
	// Summary is one line, such as "ValueError: no such customer".
	Summary string
	// Detail is the traceback.
	Detail string
}

func (f *Failure) Error() string { return f.Summary }

// ErrNotTried means that the function did not run, or was cut short by no fault
// of its own: the message is released, without using an attempt.
var ErrNotTried = errors.New("not tried")

// ErrRunAgain is an ErrNotTried whose message is best run again at once, with a new
// timeout: its call ended, or its time was up, by no fault of its own.
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

// Reject marks an error as final: the message goes to the dead letters at once,
// with err as the reason.
func Reject(err error) error { return &rejection{err} }

// Rejected reports whether err, or one that it wraps, was made by Reject.
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

// RetryAfter is a failed attempt whose function knows better than the back-off
// when to try again. A negative delay is taken as 0.
func RetryAfter(after time.Duration, err error) error { return &later{err, max(after, 0)} }

// RetryDelay returns the delay that the function asked for, if it did.
func RetryDelay(err error) (time.Duration, bool) {
	var l *later
	if errors.As(err, &l) {
		return l.after, true
	}
	return 0, false
}
