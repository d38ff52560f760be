package worker

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// grantFrom is how much credit is granted at once, in bytes: a CREDIT for each part would cost as
// much as the part.
const grantFrom = protocol.InitialCredit / 4

// responseStream is the response of a call that its worker sends in parts. The worker's reader adds
// the parts, and never waits. One goroutine, passOn, writes them to the sender of the request, and
// grants the worker credit for what it has written. So a slow client stops its own call only, and no
// more than the credit is stored here.
type responseStream struct {
	worker *Worker
	call   *Call
	id     uint32
	head   *protocol.ResponseHead

	mu      sync.Mutex
	pending []byte
	credit  int    // how many bytes the worker may send
	owed    int    // bytes that were written, without credit for them so far
	last    bool   // the body is complete
	reply   *Reply // the call's last reply
	wake    signal // pending, last or reply has changed
}

// addPart stores a part until passOn has written it.
func (s *responseStream) addPart(part *protocol.ResponsePart) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.last:
		return fmt.Errorf("%w: a PART of invocation %d after its last", protocol.ErrProtocol, s.id)
	case len(part.Body) > s.credit:
		return fmt.Errorf("%w: a PART of invocation %d of %d bytes, with credit for %d", protocol.ErrProtocol, s.id, len(part.Body), s.credit)
	}
	s.credit -= len(part.Body)
	s.pending = append(s.pending, part.Body...)
	s.last = part.Last
	s.wake.raise()
	return nil
}

// endWith passes on the call's last reply when all parts are written. It is called once.
func (s *responseStream) endWith(r Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = &r
	s.wake.raise()
}

// passOn writes the response, and then passes on the call's last reply. If it cannot write, it
// cancels the call, and drops the rest of the response.
func (s *responseStream) passOn() {
	to, whole, err := s.openReply()
	closed := false
	var spare []byte
	for {
		s.mu.Lock()
		body, last, reply := s.pending, s.last, s.reply
		s.pending = spare[:0]
		s.mu.Unlock()
		if err != nil {
			s.cancelCall()
		}
		for rest := body; len(rest) > 0; {
			n := min(len(rest), grantFrom)
			if err == nil {
				_, err = to.Write(rest[:n])
			}
			s.grantCredit(n)
			rest = rest[n:]
		}
		spare = body
		switch {
		case len(body) > 0:
			continue // more may have come meanwhile
		case last && !closed && err == nil:
			closed = true
			err = to.Close()
			continue
		case reply != nil:
			s.call.passReply(s.worker, s.resultOf(*reply, whole, err))
			return
		}
		<-s.wake
	}
}

// openReply opens the response at the sender of the request. If the sender needs the response as a
// whole, such as drover invoke, whole collects it.
func (s *responseStream) openReply() (to io.WriteCloser, whole *wholeBody, err error) {
	to, err = handlers.ReplyStream(s.call.ctx, s.head.Properties())
	if errors.Is(err, handlers.ErrNoStream) {
		whole = &wholeBody{most: s.worker.group.cfg.MaxFrame}
		return whole, whole, nil
	}
	return to, nil, err
}

// grantCredit adds credit for n bytes that were handled. Several grants are sent together.
func (s *responseStream) grantCredit(n int) {
	s.mu.Lock()
	s.owed += n
	if n = s.owed; n < grantFrom {
		s.mu.Unlock()
		return
	}
	s.owed = 0
	s.credit += n
	s.mu.Unlock()
	w := s.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.isOpen() {
		w.out.bytes = protocol.AppendCredit(w.out.bytes, s.id, uint32(n))
		w.wake.raise()
	}
}

// isOpen reports whether the call still has its ID. The caller holds the worker's mu.
func (s *responseStream) isOpen() bool {
	return int(s.id) < len(s.worker.calls) && s.worker.calls[s.id] == s.call
}

// cancelCall cancels the call, unless that was done.
func (s *responseStream) cancelCall() {
	w := s.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.isOpen() && !s.call.cancelReported {
		w.cancelLocked(s.call)
	}
}

// resultOf returns the call's last reply, or the error that takes its place. The response has
// begun, so the call cannot run again.
func (s *responseStream) resultOf(r Reply, whole *wholeBody, err error) Reply {
	s.worker.mu.Lock()
	cancelled := s.call.cancelReported
	s.worker.mu.Unlock()
	switch {
	case err != nil && r.Lost == nil:
		r.err = fmt.Errorf("the response was not sent completely: %w", err)
		if s.call.ctx.Err() == nil && whole == nil {
			r.err = fmt.Errorf("%w: %w", r.err, handlers.ErrNotTried) // the client is gone, which is no failure
		}
	case r.Lost != nil && !cancelled:
		r = Reply{err: r.Lost.Err}
	case whole != nil && r.Status == protocol.Done:
		r.properties, r.payload = s.head.Properties(), whole.body
	}
	return r
}

// wholeBody collects a response.
type wholeBody struct {
	body []byte
	most int
}

func (b *wholeBody) Write(part []byte) (int, error) {
	if len(b.body)+len(part) > b.most {
		return 0, fmt.Errorf("it has more than %d bytes", b.most)
	}
	b.body = append(b.body, part...)
	return len(part), nil
}

// Close does nothing: the call's result ends the response.
func (b *wholeBody) Close() error { return nil }
