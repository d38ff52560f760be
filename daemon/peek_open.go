package daemon

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/storagequeue"
)

// openPeeker reaches the messages that wait for a function, at their source, without
// receiving any. The kinds of sources are here.
func openPeeker(ctx context.Context, cfg *configs.Config, function string, log *slog.Logger) (triggers.Peeker, func() error, error) {
	switch t := cfg.Functions[function].Trigger; {
	case t.StorageQueue != nil:
		account, err := storageAccount(t.StorageQueue.Connection, cfg.Connections[t.StorageQueue.Connection])
		if err != nil {
			return nil, nil, err
		}
		p, err := storagequeue.OpenPeeker(storagequeue.PeekConfig{
			Account: account, Queue: t.StorageQueue.Queue, Encoding: storagequeue.Encoding(t.StorageQueue.Encoding), Log: log,
		})
		if err != nil {
			account.Close()
			return nil, nil, err
		}
		return p, func() error { account.Close(); return nil }, nil
	case t.ServiceBus != nil:
		access, err := busAccess(t.ServiceBus.Connection, cfg.Connections[t.ServiceBus.Connection])
		if err != nil {
			return nil, nil, err
		}
		p, err := servicebus.OpenPeeker(servicebus.PeekConfig{
			Access: access, Queue: t.ServiceBus.Queue, Topic: t.ServiceBus.Topic, Subscriptions: t.ServiceBus.Subscription, Sessions: t.ServiceBus.Sessions, Log: log,
		})
		if err != nil {
			return nil, nil, err
		}
		return p, func() error {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
			defer cancel()
			return p.Close(closing)
		}, nil
	default:
		return openNATSPeeker(ctx, cfg, t.NATS, log)
	}
}

func openNATSPeeker(ctx context.Context, cfg *configs.Config, n *configs.NATSTrigger, log *slog.Logger) (triggers.Peeker, func() error, error) {
	if cfg.Connections[n.Connection].Embedded() {
		if _, err := os.Stat(embeddedDir(cfg, n.Connection)); errors.Is(err, fs.ErrNotExist) {
			return nothing{}, func() error { return nil }, nil // a look must not make it
		}
	}
	c, _, done, err := reachNATS(ctx, cfg, n.Connection, log)
	if err != nil {
		return nil, nil, err
	}
	p, err := natsjs.OpenPeeker(ctx, c, natsjs.PeekConfig{Stream: n.Stream, Consumer: n.Consumer, Subject: n.Subject, OrderingToken: n.OrderingToken})
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return p, done, nil
}

// nothing is what waits at a source that was never used.
type nothing struct{}

// Peek implements triggers.Peeker.
func (nothing) Peek(context.Context, int) ([]triggers.Message, error) { return nil, nil }

// Close implements triggers.Peeker.
func (nothing) Close(context.Context) error { return nil }
