// Package deadletters has the dead-letter stream of a consumer. A trigger copies its rejected messages
// there, with a Graveyard; a command reads and replays them, with what Open returns.
package deadletters

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
)

// Config identifies the dead letters of one stream.
type Config struct {
	Stream      string // the stream of the original messages
	DeadLetters string // the dead-letter stream
	// OrderingToken is the same as in natsjs.Config.
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

// Open returns the dead letters of a stream; none if the dead-letter stream does
// not exist yet. The caller keeps ownership of the connection.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config) (triggers.DeadLetters, error) {
	d := &deadStream{js: js, cfg: cfg}
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	var err error
	d.dead, err = js.Stream(ctx, cfg.DeadLetters)
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
	cfg        Config
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
				out = append(out, parseLetter(m, d.cfg))
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
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	origin, err := d.openOrigin(ctx)
	if err != nil {
		return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, d.cfg.DeadLetters, err)
	}
	back := false
	if !tried.IsZero() {
		if back, err = d.isBack(ctx, origin, replayID(m, d.cfg), tried); err != nil {
			return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, d.cfg.DeadLetters, err)
		}
	}
	if !back {
		if _, err := d.js.PublishMsg(ctx, CopyOf(l, d.cfg, origin.CachedInfo().Config.AllowMsgTTL), jetstream.WithExpectStream(d.cfg.Stream)); err != nil {
			if client.NobodyTakes(err) {
				err = client.ErrNoStream
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
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
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
