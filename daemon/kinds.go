package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
)

// This file makes handlers, triggers and outputs of what a configuration names. There
// is one explicit list of kinds each, and no other registry.

const (
	// storageLanes is how many results are on their way to a storage queue at once:
	// it takes them one by one.
	storageLanes = 32
)

// openTrigger makes the source of a function's messages. The kinds of triggers
// are here.
func (p *parts) openTrigger(ctx context.Context, name string, settings configs.Function, memory *triggers.Account, log *slog.Logger) (triggers.Trigger, error) {
	if settings.Trigger.StorageQueue != nil {
		return p.openStorageQueue(ctx, settings, memory, log)
	}
	if settings.Trigger.ServiceBus != nil {
		return p.openServiceBus(ctx, settings, memory, log)
	}
	return openNATS(ctx, p.connection(settings.Trigger.Connection()), name, settings, memory, log)
}

func openNATS(ctx context.Context, c *natsjs.Connection, name string, settings configs.Function, memory *triggers.Account, log *slog.Logger) (triggers.Trigger, error) {
	n := settings.Trigger.NATS
	return natsjs.Open(ctx, c, natsjs.Config{
		Stream:        n.Stream,
		Subject:       n.Subject,
		Consumer:      n.Consumer,
		Create:        *n.Create,
		AckWait:       n.AckWait.D(),
		OrderingToken: n.OrderingToken,
		DeadLetters:   n.DeadLetters,
		MaxAttempts:   settings.Retry.MaxAttempts,
		Prefetch:      int(settings.Prefetch),
		Function:      name,
		Memory:        memory,
		Log:           log,
	})
}

// openOutput makes what takes a function's results, or one of several, and has it
// run. The kinds of outputs are here.
func (p *parts) openOutput(ctx context.Context, f *apps.Function, settings configs.Output) error {
	var open dispatch.OpenSender
	lanes, subject := 1, ""
	switch {
	case settings.NATS != nil:
		subject = settings.NATS.Subject
		c := p.connection(settings.NATS.Connection)
		open = func(context.Context) (dispatch.Sender, func() error, error) {
			return c.NewSender(), func() error { return nil }, nil
		}
	case settings.ServiceBus != nil:
		access, err := busAccess(settings.ServiceBus.Connection, p.cfg.Connections[settings.ServiceBus.Connection])
		if err != nil {
			return err
		}
		open = busSender(access, settings.ServiceBus.Queue+settings.ServiceBus.Topic) // one of them is empty
	case settings.StorageQueue != nil:
		q := settings.StorageQueue
		account, err := p.account(q.Connection)
		if err != nil {
			return err
		}
		open, lanes = storageSender(account, q.Queue, q.Encoding, q.Delay.D(), q.TimeToLive.D()), storageLanes
	}
	own := dispatch.NewOutput(dispatch.OutputConfig{
		Open: open, Name: settings.String(), Entity: destinationOf(settings), Subject: subject, Lanes: lanes, Log: f.Log,
	})
	f.Outputs = append(f.Outputs, own)
	own.Start(context.WithoutCancel(ctx))
	return nil
}

// checkParts looks for what is wrong with a configuration on this machine and in
// this program, without starting anything of the user's.
func checkParts(ctx context.Context, cfg *configs.Config, funcs handlers.Funcs, env configs.Env, environ []string) (notes []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if n := cfg.Functions[name].Trigger.NATS; n != nil && !*n.Create {
			notes = append(notes, fmt.Sprintf("function %s moves rejected messages to the stream %s, which has to be there: %s", name, n.DeadLetters, natsjs.GraveyardCommand(n.DeadLetters, 1)))
		}
	}
	more, errs := apps.CheckApps(ctx, cfg, env, environ)
	return append(notes, more...), errors.Join(append(apps.CheckFuncs(cfg, funcs), errs...)...)
}

// The systems that the conventions have no name for.
const (
	systemNATS         = "nats"
	systemStorageQueue = "azure_storage_queue"
)

func destinationOf(o configs.Output) dispatch.Entity {
	switch {
	case o.ServiceBus != nil:
		return dispatch.Entity{System: semconv.MessagingSystemServiceBus.Value.AsString(), Name: o.ServiceBus.Queue + o.ServiceBus.Topic} // one of them is empty
	case o.StorageQueue != nil:
		return dispatch.Entity{System: systemStorageQueue, Name: o.StorageQueue.Queue}
	case o.NATS != nil:
		return dispatch.Entity{System: systemNATS, Name: o.NATS.Subject}
	}
	return dispatch.Entity{}
}

func sourceOf(t configs.Trigger) (d dispatch.Entity) {
	switch {
	case t.ServiceBus != nil:
		d = dispatch.Entity{System: semconv.MessagingSystemServiceBus.Value.AsString(), Name: t.ServiceBus.Queue + t.ServiceBus.Topic, Disposition: disposition}
		if len(t.ServiceBus.Subscription) == 1 && t.ServiceBus.Topic != "" {
			d.Attributes = append(d.Attributes, semconv.MessagingDestinationSubscriptionName(t.ServiceBus.Subscription[0]))
		}
	case t.StorageQueue != nil:
		d = dispatch.Entity{System: systemStorageQueue, Name: t.StorageQueue.Queue}
	case t.NATS != nil:
		d = dispatch.Entity{System: systemNATS, Name: t.NATS.Subject, BySubject: true}
		if d.Name == "" {
			d.Name = t.NATS.Stream
		}
		if strings.ContainsAny(d.Name, "*>") {
			d.Attributes = append(d.Attributes, semconv.MessagingDestinationTemplate(d.Name))
		}
		d.Attributes = append(d.Attributes, semconv.MessagingConsumerGroupName(t.NATS.Consumer))
	}
	return d
}

// disposition is what Service Bus calls a verdict.
func disposition(kind triggers.Kind) attribute.KeyValue {
	switch kind {
	case triggers.Done:
		return semconv.MessagingServiceBusDispositionStatusComplete
	case triggers.Reject:
		return semconv.MessagingServiceBusDispositionStatusDeadLetter
	}
	return semconv.MessagingServiceBusDispositionStatusAbandon
}
