package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"github.com/drover-run/drover/triggers"
)

// Streamed is a context that can pass on the function's result in parts. It is found as a
// Described is.
type Streamed interface {
	context.Context

	// ReplyStream begins the reply to the sender of the message. See triggers.StreamReplier.
	ReplyStream(ctx context.Context, properties triggers.Properties) (io.WriteCloser, error)
}

// ErrNoStream is returned by ReplyStream if no client waits for a reply in parts: the message is
// not an HTTP request, or the context is not that of a call. The function then returns its whole
// result.
var ErrNoStream = errors.New("the message has no sender that waits for a stream; only a function with an http trigger can answer with one")

// ReplyStream begins a reply that is passed on in parts, for a function with an http trigger. ctx is
// the context of the call. Close is optional: the reply ends when the function has returned without
// an error and its outputs are sent. A function that fails before that ends the response in a way
// that the client notices. The function returns no output.
func ReplyStream(ctx context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	s, ok := ctx.(Streamed)
	if !ok {
		s, ok = ctx.Value(DescribedKey).(Streamed)
	}
	if !ok {
		return nil, ErrNoStream
	}
	return s.ReplyStream(ctx, properties)
}

// Respond sets the status and the headers of the response to the HTTP request for which ctx is the
// context; the body is the function's output. A header is a pair of name and value, and may be
// repeated, as Set-Cookie is. It replaces what Describe has set.
func Respond(ctx context.Context, status int, headers ...[2]string) {
	Describe(ctx, ResponseProperties(status, headers...))
}

// ResponseProperties returns the properties of a response, for Describe and ReplyStream.
func ResponseProperties(status int, headers ...[2]string) triggers.Properties {
	properties := triggers.Properties{triggers.HTTPStatus: strconv.Itoa(status)}
	if len(headers) > 0 {
		text, _ := json.Marshal(headers) // pairs of texts always work
		properties[triggers.HTTPHeaders] = string(text)
	}
	return properties
}
