package dispatch

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/drover-run/drover/triggers"
)

// replyStream is a reply in parts, which ends once. Until detach is called, the end of the attempt's
// context ends its Write.
type replyStream struct {
	io.Writer
	end    func() error
	detach func() bool
}

// openReplyStream begins a reply. ctx is the attempt's context, or derived from it.
func openReplyStream(ctx context.Context, to triggers.StreamReplier, properties triggers.Properties) (*replyStream, error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w, err := to.ReplyStream(own, properties)
	if err != nil {
		cancel()
		return nil, err
	}
	end := func() error {
		defer cancel()
		return w.Close()
	}
	return &replyStream{w, sync.OnceValue(end), context.AfterFunc(ctx, cancel)}, nil
}

func (s *replyStream) Close() error { return s.end() }

// streamPart is the writer that a function with outputs gets. Only sendReply ends the reply, when the
// outputs have their messages.
type streamPart struct{ io.Writer }

// Close does nothing.
func (streamPart) Close() error { return nil }

// extraRuns guards the executions that RunExtra adds: none is added once Run waits for the last.
type extraRuns struct {
	mu   sync.Mutex
	open bool
}

func (e *extraRuns) setOpen(open bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open = open
}

// errNotReceiving is the error of RunExtra while the function does not run.
var errNotReceiving = errors.New("the function is starting, stopping or disabled")
