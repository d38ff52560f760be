package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// This file reads the dead-letter stream for an operator. message.go writes the dead letters.

// DeadLettersConfig identifies the dead letters of one stream.
type DeadLettersConfig struct {
	Stream      string // the stream of the original messages
	DeadLetters string // the dead-letter stream
	// OrderingToken is the same as in Config.
	OrderingToken int
	// Shared permits a replay if the stream has several consumers that each get every message.
	Shared bool
}

const (
	// browseLanes bounds the concurrent requests for dead letters: the server returns one per
	// request.
	browseLanes = 32
	// maxLook bounds the last messages of a stream that are searched for a copy.
	maxLook = 10_000
	// skew bounds the difference between the local clock and the server's.
	skew = time.Minute
	// windowSlack is subtracted from the stream's duplicate window before relying on it.
	windowSlack = 10 * time.Second
)

// OpenDeadLetters returns the dead letters of a stream; none if the dead-letter stream does
// not exist yet. The caller keeps ownership of the connection.
func OpenDeadLetters(ctx context.Context, c *Connection, cfg DeadLettersConfig) (triggers.DeadLetters, error) {
	d := &deadStream{js: c.js, cfg: cfg}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	var err error
	d.dead, err = c.js.Stream(ctx, cfg.DeadLetters)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("the dead-letter stream %s: %w", cfg.DeadLetters, err)
	}
	state := d.dead.CachedInfo().State
	d.next, d.last = state.FirstSeq, state.LastSeq
	return d, nil
}

type deadStream struct {
	js         jetstream.JetStream
	cfg        DeadLettersConfig
	dead       jetstream.Stream // nil if it does not exist yet
	next, last uint64           // the sequences that Browse reads: the next one and the last one

	mu     sync.Mutex
	origin jetstream.Stream // nil until it is looked up
}

// Browse implements triggers.DeadLetters. Later dead letters have higher sequences.
func (d *deadStream) Browse(ctx context.Context, n int) ([]triggers.DeadLetter, error) {
	for d.dead != nil && d.next <= d.last {
		// The first sequences may be deleted. The server skips those.
		first, err := d.dead.GetMsg(ctx, d.next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && first.Sequence > d.last {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the dead-letter stream %s from %d on: %w", d.cfg.DeadLetters, d.next, err)
		}
		raw, err := d.read(ctx, first, min(first.Sequence+uint64(n)-1, d.last))
		if err != nil {
			return nil, err
		}
		d.next = first.Sequence + uint64(len(raw))
		var out []triggers.DeadLetter
		for _, m := range raw {
			if m != nil && headerOr(m.Header, "Drover-Stream", d.cfg.Stream) == d.cfg.Stream {
				out = append(out, d.letter(m))
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

// read returns the messages from first to the sequence to; deleted ones are nil.
func (d *deadStream) read(ctx context.Context, first *jetstream.RawStreamMsg, to uint64) ([]*jetstream.RawStreamMsg, error) {
	out := make([]*jetstream.RawStreamMsg, to-first.Sequence+1)
	out[0] = first
	errs := make([]error, browseLanes)
	var all sync.WaitGroup
	for lane := range browseLanes {
		all.Go(func() {
			for i := 1 + lane; i < len(out) && errs[lane] == nil; i += browseLanes {
				m, err := d.dead.GetMsg(ctx, first.Sequence+uint64(i))
				switch {
				case err == nil:
					out[i] = m
				case !errors.Is(err, jetstream.ErrMsgNotFound):
					errs[lane] = fmt.Errorf("reading the dead-letter stream %s at %d: %w", d.cfg.DeadLetters, first.Sequence+uint64(i), err)
				}
			}
		})
	}
	all.Wait()
	return out, errors.Join(errs...)
}

func headerOr(h nats.Header, name, without string) string {
	if v := h.Get(name); v != "" {
		return v
	}
	return without
}

// obituaryHeaders are the headers added by obituary.
var obituaryHeaders = map[string]bool{
	"Drover-Function": true, "Drover-Error": true, "Drover-Attempts": true, "Drover-Subject": true, "Drover-Stream": true,
	"Drover-Sequence": true, "Drover-Message-Id": true, "Drover-Enqueued": true, "Drover-Rejected": true, "Drover-Traceback": true, "Drover-Note": true, bodyLengthHeader: true,
}

// letter parses a dead letter written by obituary. Other programs may write to the stream, too.
func (d *deadStream) letter(m *jetstream.RawStreamMsg) triggers.DeadLetter {
	h := m.Header
	out := triggers.DeadLetter{
		ID:       strconv.FormatUint(m.Sequence, 10),
		Reason:   h.Get("Drover-Error"),
		Function: h.Get("Drover-Function"),
		Died:     timeOr(h.Get("Drover-Rejected"), m.Time),
		Own:      m,
		Message: triggers.Message{
			ID: h.Get("Drover-Message-Id"), Body: m.Data, Enqueued: timeOr(h.Get("Drover-Enqueued"), time.Time{}),
			Subject: headerOr(h, "Drover-Subject", strings.TrimPrefix(m.Subject, d.cfg.DeadLetters+".")),
		},
	}
	if d.cfg.OrderingToken > 0 {
		out.Message.OrderingKey = token(out.Message.Subject, d.cfg.OrderingToken)
	}
	if n, err := strconv.Atoi(h.Get("Drover-Attempts")); err == nil {
		out.Message.Attempt = n
	}
	if text := h.Get("Drover-Traceback"); json.Unmarshal([]byte(text), &out.Detail) != nil {
		out.Detail = text // not written by drover
	}
	if note := h.Get("Drover-Note"); note != "" {
		out.Detail = strings.TrimSpace(out.Detail + "\n" + note)
	}
	for name, values := range h {
		if obituaryHeaders[name] || strings.HasPrefix(name, natsHeaders) || len(values) == 0 {
			continue // a header of the dead letter
		}
		if out.Message.Attributes == nil {
			out.Message.Attributes = make(map[string]string, len(h))
		}
		attribute(&out.Message, strings.TrimPrefix(name, originalHeaders), values)
	}
	return out
}

func timeOr(text string, without time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at
	}
	return without
}

// replayedID is the header with the message's ID in a replayed copy. Under the ID's own header
// the server would drop the copy as a duplicate of the original.
const replayedID = "Drover-Replayed-Id"

// replayID returns the ID of a dead letter's copy. It is always the same, so the server drops a
// second copy within the stream's duplicate window. It includes the time, because a recreated
// stream numbers its messages from 1 again.
func (d *deadStream) replayID(m *jetstream.RawStreamMsg) string {
	return fmt.Sprintf("drover.replay.%s.%d.%d", d.cfg.DeadLetters, m.Sequence, m.Time.UnixNano())
}

// copyOf returns the original message for publishing. It omits headers that affect publishing,
// such as expected sequences. It keeps only the time to live, counted from now, and only if
// expires is set: streams without support for it refuse such a message.
func (d *deadStream) copyOf(l triggers.DeadLetter, m *jetstream.RawStreamMsg, expires bool) *nats.Msg {
	out := nats.NewMsg(l.Message.Subject)
	out.Data = m.Data
	for name, values := range m.Header {
		if !obituaryHeaders[name] && !strings.HasPrefix(name, natsHeaders) && !strings.HasPrefix(name, originalHeaders+natsHeaders) {
			out.Header[name] = values
		}
	}
	if own := m.Header[originalHeaders+jetstream.MsgIDHeader]; len(own) > 0 {
		out.Header[originalHeaders+jetstream.MsgIDHeader] = own
	}
	if ttl := m.Header[originalHeaders+jetstream.MsgTTLHeader]; len(ttl) > 0 && expires {
		out.Header[jetstream.MsgTTLHeader] = ttl
	}
	if l.Message.ID != "" {
		out.Header[replayedID] = []string{l.Message.ID}
	} else {
		out.Header[replayedID] = []string{d.cfg.DeadLetters + ":" + l.ID}
	}
	out.Header.Set(jetstream.MsgIDHeader, d.replayID(m))
	return out
}

// asSent returns the headers that the sender set, also for a replayed copy.
func asSent(h nats.Header) nats.Header {
	if len(h[replayedID]) == 0 {
		return h
	}
	out := make(nats.Header, len(h))
	for name, values := range h {
		switch name {
		case replayedID, jetstream.MsgIDHeader, jetstream.ExpectedStreamHeader, originalHeaders + jetstream.MsgIDHeader:
		default:
			out[name] = values
		}
	}
	if own := h[originalHeaders+jetstream.MsgIDHeader]; len(own) > 0 {
		out[jetstream.MsgIDHeader] = own
	}
	return out
}

// Replay implements triggers.DeadLetters. It publishes a copy to the original subject, and
// removes the dead letter when the server has confirmed the copy.
func (d *deadStream) Replay(ctx context.Context, l triggers.DeadLetter, tried time.Time) error {
	m, err := d.own(l)
	if err != nil {
		return err
	}
	if whole := m.Header.Get(bodyLengthHeader); whole != "" {
		return fmt.Errorf("dead letter %s of %s has %d of the %s bytes of its message, which was too large to be moved whole: send that again from where it came from, and purge this", l.ID, d.cfg.DeadLetters, len(m.Data), whole)
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	origin, err := d.openOrigin(ctx)
	if err != nil {
		return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, d.cfg.DeadLetters, err)
	}
	back := false
	if !tried.IsZero() {
		if back, err = d.isBack(ctx, origin, d.replayID(m), tried); err != nil {
			return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, d.cfg.DeadLetters, err)
		}
	}
	if !back {
		if _, err := d.js.PublishMsg(ctx, d.copyOf(l, m, origin.CachedInfo().Config.AllowMsgTTL), jetstream.WithExpectStream(d.cfg.Stream)); err != nil {
			if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
				err = ErrNoStream
			}
			return fmt.Errorf("replaying dead letter %s of %s to %s: %w", l.ID, d.cfg.DeadLetters, l.Message.Subject, err)
		}
	}
	return d.Remove(ctx, l)
}

func (d *deadStream) own(l triggers.DeadLetter) (*jetstream.RawStreamMsg, error) {
	m, ok := l.Own.(*jetstream.RawStreamMsg)
	if !ok || d.dead == nil {
		return nil, fmt.Errorf("dead letter %s is not of %s", l.ID, d.cfg.DeadLetters)
	}
	return m, nil
}

// openOrigin returns the stream to which dead letters are replayed.
func (d *deadStream) openOrigin(ctx context.Context) (jetstream.Stream, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.origin != nil {
		return d.origin, nil
	}
	s, err := d.js.Stream(ctx, d.cfg.Stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", d.cfg.Stream, err)
	}
	info := s.CachedInfo()
	if n := info.State.Consumers; n > 1 && info.Config.Retention != jetstream.WorkQueuePolicy && !d.cfg.Shared {
		return nil, fmt.Errorf("%w: stream %s has %d consumers", triggers.ErrShared, d.cfg.Stream, n)
	}
	d.origin = s
	return s, nil
}

// isBack reports whether an earlier run, which started at tried and was killed, has published
// the copy. It searches the last messages of the stream back to tried. If some of them are
// deleted or out of reach, it returns ErrDoubtful, except within the stream's duplicate window:
// there the server drops a second copy.
func (d *deadStream) isBack(ctx context.Context, origin jetstream.Stream, id string, tried time.Time) (bool, error) {
	info, err := origin.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("stream %s: %w", d.cfg.Stream, err)
	}
	gone := false
	left := maxLook
	for at := info.State.LastSeq; ; at-- {
		if at < max(info.State.FirstSeq, 1) {
			gone = gone || at > 0 // the messages before FirstSeq
			break
		}
		if left--; left < 0 {
			gone = true
			break
		}
		m, err := origin.GetMsg(ctx, at)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			gone = true
			continue
		}
		if err != nil {
			return false, fmt.Errorf("reading stream %s at %d: %w", d.cfg.Stream, at, err)
		}
		if m.Header.Get(jetstream.MsgIDHeader) == id {
			return true, nil
		}
		if m.Time.Before(tried.Add(-skew)) {
			break
		}
	}
	if gone && time.Since(tried) > info.Config.Duplicates-windowSlack {
		return false, triggers.ErrDoubtful
	}
	return false, nil
}

// Remove implements triggers.DeadLetters.
func (d *deadStream) Remove(ctx context.Context, l triggers.DeadLetter) error {
	m, err := d.own(l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	err = d.dead.DeleteMsg(ctx, m.Sequence)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) { // the server gives no reason
		if _, missing := d.dead.GetMsg(ctx, m.Sequence); errors.Is(missing, jetstream.ErrMsgNotFound) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("removing dead letter %s of %s: %w", l.ID, d.cfg.DeadLetters, err)
	}
	return nil
}

// Close implements triggers.DeadLetters. There is nothing to release.
func (d *deadStream) Close(context.Context) error { return nil }
