package natsjs

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// checkRights uses each right that is needed later, without changing anything. So a missing right
// is reported at the start, not at the first failure.
func checkRights(ctx context.Context, b *binding, counts *ledger.Ledger) {
	// Renew the lease of a message that does not exist.
	sign := fmt.Sprintf("$JS.ACK.%s.%s.1.0.0.0.0", b.cfg.Stream, b.cfg.Consumer)
	if err := b.conn.Conn().Publish(sign, inProgress); err != nil {
		b.log.Debug("checking rights", "error", err)
	}
	ask := func(what func(context.Context) error) error {
		limited, cancel := context.WithTimeout(ctx, client.CheckLimit)
		defer cancel()
		asking, done := b.conn.UntilDenied(limited)
		defer done()
		return what(asking)
	}
	// The server rejects invalid JSON, but only if the account may send the request.
	permitted := func(api string) {
		_ = ask(func(ctx context.Context) error {
			_, err := b.conn.Conn().RequestWithContext(ctx, "$JS.API."+api, []byte("{"))
			return err
		})
	}
	bucket := "KV_" + client.AttemptsBucket
	err := ask(func(ctx context.Context) error { _, err := b.conn.JetStream().Stream(ctx, bucket); return err })
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		permitted("STREAM.CREATE." + bucket)
		permitted("INFO")
	case err == nil:
		_ = ask(func(ctx context.Context) error { return b.conn.Probe(ctx, counts.Subject(0)) })
		_ = ask(func(ctx context.Context) error {
			_, err := b.conn.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET."+bucket+"."+counts.Subject(0), nil)
			return err
		})
		permitted("STREAM.PURGE." + bucket)
	}
	if b.cfg.Create {
		if err := ask(func(ctx context.Context) error {
			_, err := b.conn.JetStream().Stream(ctx, b.cfg.DeadLetters)
			return err
		}); errors.Is(err, jetstream.ErrStreamNotFound) {
			permitted("STREAM.CREATE." + b.cfg.DeadLetters)
		}
	}
	_ = b.conn.Conn().FlushWithContext(ctx)
}
