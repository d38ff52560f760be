package handlers

import (
	"context"
	"errors"

	"github.com/drover-run/drover/triggers"
)

// Sending is a context that receives the messages that a function sends to its named outputs. Like
// a Described, it is its own value for DescribedKey.
type Sending interface {
	context.Context

	// Send keeps a message for the output of a name. It returns an error if the function has no
	// such output, or has returned.
	Send(output string, body []byte, properties triggers.Properties) error
}

// errNotSending is the error of Send with another context.
var errNotSending = errors.New("handlers.Send: this is not the context of a function's call")

// Send sends a message to a named output of the function; ctx must be the context of the call. The
// configuration gives outputs their names. It may be called several times, for the same or for
// different outputs, from any goroutine, and only before the function returns. properties are as
// for Describe, or nil. Neither body nor properties may be changed afterwards.
//
// Send itself sends nothing. When the function has returned without an error, its messages are
// sent, to each output in the order of the calls, and then the function's message is done. If an
// attempt fails, none of its messages are sent.
//
// If the function has no output with that name, the error is a Reject: a retry would not help.
func Send(ctx context.Context, output string, body []byte, properties triggers.Properties) error {
	s, ok := ctx.(Sending)
	if !ok {
		s, ok = ctx.Value(DescribedKey).(Sending)
	}
	if !ok {
		return errNotSending
	}
	return s.Send(output, body, properties)
}
