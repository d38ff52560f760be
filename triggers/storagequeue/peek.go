package storagequeue

import (
	"context"
	"log/slog"

	"github.com/drover-run/drover/triggers"
)

// MaxPeek is the most messages of a queue that the service shows: the first that could be had
// now.
const MaxPeek = maxPeeked

// PeekConfig names the messages of a queue.
type PeekConfig struct {
	Account  *Account
	Queue    string
	Encoding Encoding
	Log      *slog.Logger
}

// OpenPeeker returns what waits in a queue, as far as the service shows it: MaxPeek
// messages, none of which is on loan.
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
	left  []triggers.Message // that were seen and not returned
}

// Peek implements triggers.Peeker. The service is asked once: there is no way to ask for those
// that follow.
func (p *peeker) Peek(ctx context.Context, n int) ([]triggers.Message, error) {
	if !p.asked {
		seen, err := p.queue.peek(ctx, maxPeeked)
		if err != nil {
			return nil, err
		}
		p.asked = true
		for _, m := range seen {
			message := triggers.Message{ID: deref(m.MessageID), Subject: p.queue.name, Enqueued: deref(m.InsertionTime), Origin: triggers.Known(propertiesOf(deref(m.DequeueCount), deref(m.ExpirationTime)))}
			if message.Body, err = p.cfg.Encoding.decode(deref(m.MessageText)); err != nil {
				p.cfg.Log.Warn("a message is left out, since no function can have it", "message", message.ID, "reason", err)
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

// Close implements triggers.Peeker: the account is its owner's.
func (p *peeker) Close(context.Context) error { return nil }
