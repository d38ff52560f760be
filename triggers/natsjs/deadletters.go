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

// This file reads the dead-letter stream, for an operator. Its letters message.go
// has written.

// DeadLettersConfig names the dead letters of one stream.
type DeadLettersConfig struct {
	Stream      string // that they come from
	DeadLetters string // that they are in
	// OrderingToken is that of Config.
	OrderingToken int
	// Shared replays also where the stream has several consumers that each get
	// every message.
	Shared bool
}

const (
	// browseLanes is how many dead letters are requested at once: the server returns
	// one for each question.
	browseLanes = 32
	// maxLook is how many of a stream's last messages are looked at for a copy.
	maxLook = 10_000
	// skew is how far the clocks here and at the server may differ.
	skew = time.Minute
	// windowSlack is how long before the end of its window for duplicates a stream
	// is not relied upon any more.
	windowSlack = 10 * time.Second
)

// OpenDeadLetters returns the dead letters of a stream; there are none where the
// dead-letter stream is not made yet. The connection stays its owner's.
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
	dead       jetstream.Stream // nil where it is not made yet
	next, last uint64           // of Browse

	mu     sync.Mutex
	origin jetstream.Stream // once it is looked up
}

// Browse implements triggers.DeadLetters. What comes later has a higher sequence.
func (d *deadStream) Browse(ctx context.Context, n int) ([]triggers.DeadLetter, error) {
	for d.dead != nil && d.next <= d.last {
		// Far from the front there may be none for long: the server skips those.
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

// read gets the messages from the first one to a sequence; nil for those that
// are gone.
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

// obituaryHeaders are those that obituary adds.
var obituaryHeaders = map[string]bool{
	"Drover-Function": true, "Drover-Error": true, "Drover-Attempts": true, "Drover-Subject": true, "Drover-Stream": true,
	"Drover-Sequence": true, "Drover-Message-Id": true, "Drover-Enqueued": true, "Drover-Rejected": true, "Drover-Traceback": true, "Drover-Note": true, bodyLengthHeader: true,
}

// letter reads what obituary has written. Others may have put something else there.
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
		out.Detail = text // not ours
	}
	if note := h.Get("Drover-Note"); note != "" {
		out.Detail = strings.TrimSpace(out.Detail + "\n" + note)
	}
	for name, values := range h {
		if obituaryHeaders[name] || strings.HasPrefix(name, natsHeaders) || len(values) == 0 {
			continue // the dead letter's own
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

// The headers of a copy that was replayed, beside its own. The message's id is
// kept under another name: under its own the server would take the copy for a
// duplicate of the message that it was, and drop it.
const replayedID = "Drover-Replayed-Id"

// replayID names the copy of a dead letter, always the same: the server drops a
// second one with it, for as long as the stream's window is. The time is in it
// since a stream that was made anew counts from 1 again.
func (d *deadStream) replayID(m *jetstream.RawStreamMsg) string {
	return fmt.Sprintf("drover.replay.%s.%d.%d", d.cfg.DeadLetters, m.Sequence, m.Time.UnixNano())
}

// copyOf is the message as it was, to be sent again. Headers that steered its
// first publishing are left out: they would steer this one. Only its time to live is kept, and
// begins anew, where the stream takes one: others refuse such a message.
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

// asSent is a message's headers as its sender gave them, also those of a copy
// that was replayed.
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

// Replay implements triggers.DeadLetters: it publishes a copy to the subject that
// the message had, and when that is confirmed removes the dead letter.
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

// openOrigin looks the stream up that dead letters are replayed to.
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

// isBack finds out whether a copy was published by a run that began to at a time
// and was killed. The last messages of the stream tell, where none of them is
// gone; and where the time is within the stream's window for duplicates it does
// not matter, since the server drops a second copy.
func (d *deadStream) isBack(ctx context.Context, origin jetstream.Stream, id string, tried time.Time) (bool, error) {
	info, err := origin.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("stream %s: %w", d.cfg.Stream, err)
	}
	gone := false
	left := maxLook
	for at := info.State.LastSeq; ; at-- {
		if at < max(info.State.FirstSeq, 1) {
			gone = gone || at > 0 // those before the first one
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
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) { // it does not say why
		if _, missing := d.dead.GetMsg(ctx, m.Sequence); errors.Is(missing, jetstream.ErrMsgNotFound) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("removing dead letter %s of %s: %w", l.ID, d.cfg.DeadLetters, err)
	}
	return nil
}

// Close implements triggers.DeadLetters: nothing is borrowed.
func (d *deadStream) Close(context.Context) error { return nil }
