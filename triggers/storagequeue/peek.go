package storagequeue

import (
	"context"
	"log/slog"

	"github.com/drover-run/drover/triggers"
)

// MaxPeek is the largest number of messages that the service shows: the ones at the front that can
// be received.
const MaxPeek = 32

// PeekConfig identifies the messages of a queue.
type PeekConfig struct {
	Account  *Account
	Queue    string
	Encoding Encoding
	Log      *slog.Logger
}

// OpenPeeker returns a Peeker of a queue's messages. The service shows at most MaxPeek of them, and
// no leased ones.
func OpenPeeker(cfg PeekConfig) (triggers.Peeker, error) {
	queue, err := cfg.Account.reach(cfg.Queue)
	if err != nil {
		return nil, err
	}
	return &peeker{cfg: cfg, queue: queue}, nil
}

type peeker struct {
	cfg   PeekConfig
	queue *reach
	asked bool
	left  []triggers.Message // messages peeked and not yet returned
}

// Peek implements triggers.Peeker. It sends one request, because the service cannot show the
// messages after the first ones.
func (p *peeker) Peek(ctx context.Context, n int) ([]triggers.Message, error) {
	if !p.asked {
		seen, err := p.queue.peek(ctx, MaxPeek)
		if err != nil {
			return nil, err
		}
		p.asked = true
		for _, m := range seen {
			message := triggers.Message{ID: deref(m.MessageID), Subject: p.queue.name, Enqueued: deref(m.InsertionTime), Origin: triggers.Known(propertiesOf(deref(m.DequeueCount), deref(m.ExpirationTime)))}
			if message.Body, err = p.cfg.Encoding.decode(deref(m.MessageText)); err != nil {
				p.cfg.Log.Warn("a message is omitted, because no function can receive it", "message", message.ID, "reason", err)
				continue
			}
			p.left = append(p.left, message)
		}
	}
	n = min(n, len(p.left))
	out := p.left[:n]
	p.left = p.left[n:]
	return out, nil
}

// Close implements triggers.Peeker. The caller owns the account.
func (p *peeker) Close(context.Context) error { return nil }

// Find implements triggers.Finder. The service does not show hidden messages: those that
// another receiver has leased, or that wait for their retry.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	if found, has := t.own(id); has {
		return found, nil
	}
	seen, err := t.queue.peek(ctx, MaxPeek)
	if err != nil {
		return triggers.Found{}, err
	}
	for n, m := range seen {
		if deref(m.MessageID) != id {
			continue
		}
		failures, err := t.cfg.Ledger.failures(t.key, id)
		if err != nil {
			failures = -1
		}
		return triggers.Found{Place: triggers.PlaceReady, Ahead: int64(n), Failures: failures, Enqueued: deref(m.InsertionTime)}, nil
	}
	return triggers.Found{}, triggers.ErrNotFound
}

// own returns a message that this trigger has leased.
func (t *shared) own(id string) (found triggers.Found, has bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.keeper.All() {
		if l.message.ID == id && !l.Lost() {
			return triggers.Found{Place: triggers.PlaceHeld, Ahead: -1, Failures: l.failures, Enqueued: l.message.Enqueued}, true
		}
	}
	return found, false
}
