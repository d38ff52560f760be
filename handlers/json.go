package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"

	"github.com/drover-run/drover/triggers"
)

// JSON returns a Func that calls f with the body of a message, decoded as a Go value. If the body is not
// JSON, or does not fit T, the message is rejected at once with the reason, because a retry would not
// help, and f is not called. MessageOf returns the message itself.
func JSON[T any](f func(ctx context.Context, body T) error) Func {
	return JSONResult(func(ctx context.Context, body T) (*struct{}, error) { return nil, f(ctx, body) })
}

// JSONResult is JSON for a function with a result, which is sent as JSON to the function's output, or to
// the client of an HTTP request. A nil pointer or interface is not a result. A message whose result cannot be
// encoded is rejected. The content type is application/json, unless f sets another with Describe or Respond.
func JSONResult[T, R any](f func(ctx context.Context, body T) (R, error)) Func {
	return func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		body, err := decodeBody[T](m)
		if err != nil {
			return nil, err
		}
		call := &jsonCall{Context: ctx, message: m}
		result, err := f(call, body)
		if err != nil {
			return nil, err
		}
		output, err := encodeResult(result)
		if output != nil && !call.described {
			Describe(ctx, jsonProperties)
		}
		return output, err
	}
}

// JSONBatch returns a BatchFunc that calls f with the decoded bodies of several messages. Messages whose
// bodies are not JSON, or do not fit T, are rejected and not passed to f; if none is left, f is not
// called. f returns a result for each message of batch, or none if all are done. See BatchFunc.
func JSONBatch[T any](f func(ctx context.Context, batch []Decoded[T]) ([]Result, error)) BatchFunc {
	return func(ctx context.Context, messages []*triggers.Message) ([]Result, error) {
		all := make([]Result, len(messages))
		batch, places := make([]Decoded[T], 0, len(messages)), make([]int, 0, len(messages))
		for i, m := range messages {
			body, err := decodeBody[T](m)
			if all[i].Err = err; err == nil {
				batch, places = append(batch, Decoded[T]{body, m}), append(places, i)
			}
		}
		if len(batch) == 0 {
			return all, nil
		}
		results, err := f(ctx, batch)
		if err != nil {
			return nil, err
		}
		if n := len(results); n != 0 && n != len(batch) {
			return nil, fmt.Errorf("it returned %d results for %d messages; return one for each message, in the same order, or none", n, len(batch))
		}
		for i, r := range results {
			all[places[i]] = r
		}
		return all, nil
	}
}

// Decoded is a message of a batch and its decoded body.
type Decoded[T any] struct {
	Body    T
	Message *triggers.Message
}

// JSONOutput returns the Result of a message that is done, with v as its output. If v cannot be
// encoded, the message is rejected.
func JSONOutput(v any) Result {
	output, err := encodeResult(v)
	if err != nil {
		return Result{Err: err}
	}
	return Result{Output: output, Properties: jsonProperties}
}

// jsonCall is the context of a call of JSONResult. It passes on the function's properties, with a content
// type, and the messages that it sends.
type jsonCall struct {
	context.Context
	message   *triggers.Message
	described bool
}

type messageKey struct{}

// MessageOf returns the message of a call of JSON or JSONResult, with its ID, attempt and attributes. ctx
// is the context of the call. It returns nil for any other context.
func MessageOf(ctx context.Context) *triggers.Message {
	m, _ := ctx.Value(messageKey{}).(*triggers.Message)
	return m
}

// Value implements context.Context.
func (c *jsonCall) Value(key any) any {
	switch key {
	case messageKey{}:
		return c.message
	case DescribedKey:
		return c
	}
	return c.Context.Value(key)
}

// Describe implements Described.
func (c *jsonCall) Describe(properties triggers.Properties) {
	c.described = true
	if properties[triggers.ContentType] == "" && !strings.Contains(strings.ToLower(properties[triggers.HTTPHeaders]), `"content-type"`) {
		properties = maps.Clone(properties)
		if properties == nil {
			properties = make(triggers.Properties)
		}
		maps.Copy(properties, jsonProperties)
	}
	Describe(c.Context, properties)
}

// Send implements Sending.
func (c *jsonCall) Send(output string, body []byte, properties triggers.Properties) error {
	return Send(c.Context, output, body, properties)
}

// ReplyStream implements Streamed.
func (c *jsonCall) ReplyStream(_ context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	return ReplyStream(c.Context, properties)
}

var jsonProperties = triggers.Properties{triggers.ContentType: "application/json"}

// decodeBody returns the body as a T. The error is a rejection.
func decodeBody[T any](m *triggers.Message) (body T, err error) {
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return body, Reject(fmt.Errorf("the body does not fit %v: %w", reflect.TypeFor[T](), err))
	}
	return body, nil
}

// encodeResult returns a result as JSON; nil for a nil pointer or interface.
func encodeResult(v any) ([]byte, error) {
	if of := reflect.ValueOf(v); !of.IsValid() || of.Kind() == reflect.Pointer && of.IsNil() {
		return nil, nil
	}
	output, err := json.Marshal(v)
	if err != nil {
		return nil, Reject(fmt.Errorf("the result cannot be encoded as JSON: %w", err))
	}
	return output, nil
}
