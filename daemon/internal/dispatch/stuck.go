package dispatch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// Messages whose verdict the source refuses wait outside their slots. Their number and the size of
// their bodies are bounded: above that, the function receives nothing until one of them is
// settled. Messages that are in flight or being received at that moment may exceed the bound by
// twice the slots at most.
const (
	maxUnsettled      = 256
	maxUnsettledBytes = 64 << 20
)

// stuck holds a function's messages that were handled and cannot be settled: the source refuses
// the verdict, or an output the result. Only refused messages have a cost. The zero value is
// empty. It is safe for use by many goroutines.
type stuck struct {
	mu      sync.Mutex
	blocked map[blockedAt]*refusal
	number  int           // unsettled messages
	bytes   int64         // the size of their bodies
	room    chan struct{} // closed when there is room again; nil while nothing waits
}

// blockedAt is where a message is blocked: at an output, by its name, or, if to is empty, at its
// source.
type blockedAt struct {
	delivery *triggers.Delivery
	output   string
}

// refusal is why one message is blocked.
type refusal struct {
	verdict triggers.Kind // the verdict that the source refuses
	err     error
	since   time.Time
}

// addBlocked records that a message is blocked.
func (s *stuck) addBlocked(at blockedAt, why refusal) {
	why.since = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked == nil {
		s.blocked = make(map[blockedAt]*refusal)
	}
	if before := s.blocked[at]; before != nil {
		before.err = why.err
		return
	}
	s.blocked[at] = &why
	if at.output == "" {
		s.number++
		s.bytes += int64(len(at.delivery.Message.Body))
	}
}

// removeBlocked records that a message is no longer blocked, and reports whether none is blocked
// now.
func (s *stuck) removeBlocked(at blockedAt) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked[at] == nil {
		return false
	}
	delete(s.blocked, at)
	if at.output == "" {
		s.number--
		s.bytes -= int64(len(at.delivery.Message.Body))
	}
	if s.room != nil && !s.isFull() {
		close(s.room)
		s.room = nil
	}
	return len(s.blocked) == 0
}

// isFull reports whether no more messages may be received; mu is held.
func (s *stuck) isFull() bool { return s.number >= maxUnsettled || s.bytes >= maxUnsettledBytes }

// waitForRoom waits until there is room for more unsettled messages. The error is ctx.Err().
func (s *stuck) waitForRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		if !s.isFull() {
			s.mu.Unlock()
			return nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reasonOf returns why a message is blocked, and since when.
func (s *stuck) reasonOf(d *triggers.Delivery) (why string, since time.Time, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, one := range s.blocked {
		if at.delivery == d && (!found || one.since.Before(since)) {
			why, since, found = at.describeRefusal(one), one.since, true
		}
	}
	return why, since, found
}

// Blockage is why messages that were handled cannot be settled.
type Blockage struct {
	Output string // the output that fails; empty: the source refuses verdicts
	Text   string // the reason, as text
	Since  time.Time
	// Messages counts those that wait because of it, and Message is the ID of the one that has
	// waited longest.
	Messages int64
	Message  string
	Full     bool // the function receives nothing because of it
}

// listBlockages returns one blockage for the source, and one for each output.
func (s *stuck) listBlockages() (out []Blockage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := make(map[string]int)
	for at, why := range s.blocked {
		i, found := of[at.output]
		if !found {
			i = len(out)
			of[at.output] = i
			out = append(out, Blockage{Output: at.output, Full: at.output == "" && s.isFull()})
		}
		p := &out[i]
		p.Messages++
		if p.Since.IsZero() || why.since.Before(p.Since) {
			p.Since, p.Message, p.Text = why.since, at.delivery.Message.ID, at.describeRefusal(why)
		}
	}
	return out
}

// describeRefusal describes what a message waits for.
func (at blockedAt) describeRefusal(w *refusal) string {
	if at.output != "" {
		return fmt.Sprintf("the result cannot be sent to %s: %v", at.output, w.err)
	}
	what := map[triggers.Kind]string{
		triggers.Done: "the source does not take the acknowledgement", triggers.Retry: "the source does not take the message back for its retry",
		triggers.Reject: "the message cannot be moved to the dead letters", triggers.Release: "the source does not take the message back",
	}[w.verdict]
	return fmt.Sprintf("%s: %v", what, w.err)
}
