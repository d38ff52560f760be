package servicebus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// PeekConfig identifies the messages of a queue, or of subscriptions.
type PeekConfig struct {
	Access        *Access
	Queue         string
	Topic         string
	Subscriptions []string
	Sessions      bool
	Log           *slog.Logger
}

// OpenPeeker returns the messages that wait in a queue, or in subscriptions, one after the other.
// It returns an error for entities with sessions: the service shows a message only to the receiver
// that has locked its session, and locking it would take it from the function.
func OpenPeeker(cfg PeekConfig) (triggers.Peeker, error) {
	if cfg.Sessions {
		return nil, fmt.Errorf("%s%s has sessions, and Service Bus shows a session's messages only to its holder: peeking would take the session from the function", cfg.Queue, cfg.Topic)
	}
	client, err := cfg.Access.Client()
	if err != nil {
		return nil, fmt.Errorf("peeking messages: %w", err)
	}
	p := &peeker{cfg: cfg, client: client}
	if cfg.Queue != "" {
		r, err := client.NewReceiverForQueue(cfg.Queue, nil)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("looking at the messages of %s: %w", cfg.Queue, err), client.Close(context.Background()))
		}
		p.sources = append(p.sources, &peeked{path: cfg.Queue, r: r})
	}
	for _, name := range cfg.Subscriptions {
		path := cfg.Topic + "/Subscriptions/" + name
		r, err := client.NewReceiverForSubscription(cfg.Topic, name, nil)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("looking at the messages of %s: %w", path, err), client.Close(context.Background()))
		}
		p.sources = append(p.sources, &peeked{path: path, r: r})
	}
	return p, nil
}

type peeker struct {
	cfg     PeekConfig
	client  *azservicebus.Client
	sources []*peeked
}

// peeked is a queue or a subscription.
type peeked struct {
	path string
	r    *azservicebus.Receiver
	next int64
	page int // see namespace.PeekPage
}

// Peek implements triggers.Peeker. It omits scheduled and deferred messages.
func (p *peeker) Peek(ctx context.Context, n int) (out []triggers.Message, err error) {
	for len(out) == 0 && len(p.sources) > 0 {
		s := p.sources[0]
		seen, err := namespace.PeekPage(ctx, s.r, s.next, n, &s.page)
		if err != nil {
			return nil, fmt.Errorf("looking at the messages of %s: %w", s.path, namespace.Explain(err, namespace.Listen))
		}
		if len(seen) == 0 {
			p.sources = p.sources[1:]
			continue
		}
		for _, m := range seen {
			if m.SequenceNumber != nil {
				s.next = max(s.next, *m.SequenceNumber+1)
			}
			if m.State != azservicebus.MessageStateActive {
				continue
			}
			message, misfit := convert.Message(m)
			message.Origin = &convert.Origin{Of: m}
			if misfit != "" {
				p.cfg.Log.Warn("a message is omitted, because no function can receive it", "message", message.ID, "reason", misfit)
				continue
			}
			out = append(out, message)
		}
	}
	return out, nil
}

// Close implements triggers.Peeker.
func (p *peeker) Close(ctx context.Context) error {
	if err := p.client.Close(ctx); err != nil {
		return fmt.Errorf("closing the connection: %w", err)
	}
	return nil
}
