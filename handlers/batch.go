package handlers

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/drover-run/drover/triggers"
)

// Batched is a Handler that runs the function on several messages in one call.
type Batched interface {
	Handler

	// HandleBatch runs the function on one or more messages. ctx ends when
	// the contexts of all of them have ended. An error means that the batch failed as a whole:
	// the caller runs it again in halves, to find the message at fault. Otherwise
	// the result has a verdict on each message.
	HandleBatch(ctx context.Context, messages []*triggers.Message) (BatchResult, error)
}

// BatchResult is the result of a batch.
type BatchResult struct {
	// Each has the results of the messages, in order; nil: all are done, without results
	// of their own.
	Each []Result
	// Whole is the result of the call itself, which belongs to all messages. It is sent before
	// any of them is done. Its Err is nil.
	Whole Result
}

// Result is the result of a function.
type Result struct {
	Output     []byte              // nil: none
	Properties triggers.Properties // of Output
	Sent       []Sent              // for named outputs
	// Err is the kind of failure, as from Handler.Handle; nil: the message is done.
	Err error
}

// Sent is a message for a named output of the function.
type Sent struct {
	Output     string
	Body       []byte
	Properties triggers.Properties
}

// BatchFunc is a function written in Go that takes several messages in one call: a `batch:` in the
// configuration sets the number. It returns a result for each message, in the same order, or none: then
// all are done. With an error or a panic the batch failed as a whole. Then it runs again in halves,
// so that only messages that fail alone use an attempt: a BatchFunc must tolerate seeing messages
// again that it had handled before it failed.
//
// Send, with the context of the call, sends messages that belong to the whole batch. A BatchFunc may
// be called from many goroutines at once; the messages must not be changed.
type BatchFunc func(ctx context.Context, messages []*triggers.Message) ([]Result, error)

// BatchFuncs are the batch functions of a program, by their names in the configuration.
type BatchFuncs map[string]BatchFunc

// HandleBatch implements Batched.
func (f BatchFunc) HandleBatch(ctx context.Context, messages []*triggers.Message) (result BatchResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			result, err = BatchResult{}, &Failure{Summary: fmt.Sprintf("panic: %v", p), Detail: string(debug.Stack())}
		}
	}()
	each, err := f(ctx, messages)
	if n := len(each); err == nil && n != 0 && n != len(messages) {
		return BatchResult{}, fmt.Errorf("it returned %d results for %d messages; return one for each message, in the same order, or none", n, len(messages))
	}
	return BatchResult{Each: each}, err
}

// Handle implements Handler, with a batch of one message.
func (f BatchFunc) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	result, err := f.HandleBatch(ctx, []*triggers.Message{m})
	if err != nil || len(result.Each) == 0 {
		return nil, err
	}
	return result.Each[0].Deliver(ctx)
}

// Close does nothing: a BatchFunc has no resources.
func (f BatchFunc) Close(context.Context) error { return nil }

// Deliver passes the properties of a result, and its messages for named outputs, to the context of
// its message. It returns what Handler.Handle returns.
func (r *Result) Deliver(ctx context.Context) ([]byte, error) {
	if r.Err != nil {
		return nil, r.Err
	}
	for _, s := range r.Sent {
		if err := Send(ctx, s.Output, s.Body, s.Properties); err != nil {
			return nil, err
		}
	}
	if r.Properties != nil {
		Describe(ctx, r.Properties)
	}
	return r.Output, nil
}

// Collector is a Starter that collects messages, and runs several of them in one call.
type Collector interface {
	Starter

	// StartCollecting is called before the first Start. When ctx ends, the messages that still
	// wait for a call are passed back as not tried.
	StartCollecting(ctx context.Context)
	// BeginReceive is called with the messages that were received, before they are passed to Start.
	BeginReceive(got []*triggers.Delivery)
	// EndReceive is called after the messages of one Receive were passed to Start. more is false
	// if no more can be received before one of those is settled, or at all: then nothing
	// waits for more.
	EndReceive(more bool)
	// EndMessage is called when a message of BeginReceive has been settled, or given up.
	EndMessage(m *triggers.Message)
	// StopWaiting is called when nothing more is received: from then on no message waits for
	// others.
	StopWaiting()
}

// BatchLeader sends the result of a batch for its first message.
type BatchLeader interface {
	// SendResult sends a result that belongs to several messages, after anything passed to Send.
	// It returns when all outputs have accepted them, or with an error as from Handler.Handle.
	// It may be called before the message has its own result.
	SendResult(output []byte, properties triggers.Properties) error
}

type leaderKey struct{}

// LeaderKey is the key of a BatchLeader among the values of a message's context.
var LeaderKey any = leaderKey{}
