package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/commandhandler"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
)

// This file makes handlers, triggers and outputs of what a configuration names. There
// is one explicit list of kinds each, and no other registry.

const (
	// defaultGoConcurrency is what a Go function has in flight: goroutines are
	// cheap, what they call usually is not.
	defaultGoConcurrency = 256
	// storageLanes is how many results are on their way to a storage queue at once:
	// it takes them one by one.
	storageLanes = 32
)

// openHandler makes what runs the function. The kinds of handlers are here.
func (p *parts) openHandler(f *function, settings configs.Function) error {
	switch h := settings.Handler; {
	case h.Go != "":
		run, found := p.daemon.funcs[h.Go]
		if !found {
			return unknownFunc(h.Go, p.daemon.funcs)
		}
		concurrency := settings.Concurrency
		if concurrency == 0 {
			concurrency = defaultGoConcurrency
		}
		f.Handler = run
		f.Share = handlers.NewSlots(concurrency).Share(0)
	case h.Exec != nil:
		noteWithheld(f.Log, h.Exec.Environment, false, p.daemon.environ())
		own, err := commandhandler.New(commandhandler.Config{
			Function: f.Name, Command: h.Exec.Command, Dir: h.Exec.Dir, Env: environmentOf(h.Exec.Environment).Of(p.daemon.environ()),
			MaxOutput: int64(h.Exec.MaxOutput), Log: f.Log, Reaper: p.startsProcesses(),
		})
		if err != nil {
			return err
		}
		concurrency := settings.Concurrency
		if concurrency == 0 {
			concurrency = runtime.GOMAXPROCS(0)
		}
		f.Handler, f.Share = own, handlers.NewSlots(concurrency).Share(0)
	case h.HTTP != nil:
		own, err := newHTTPHandler(f, settings)
		if err != nil {
			return err
		}
		f.Handler, f.Share = own, own.Slots().Share(0)
		looking, stop := context.WithCancel(context.Background())
		f.stopBeside = stop
		f.beside.Go(func() { own.Run(looking) })
	default:
		code, _ := h.Code() // the kinds that remain run in worker processes
		f.app, f.pool = code.App, p.pools[code.App]
		f.Epochs = &f.pool.epoch
		own, err := f.pool.Handler(f.Name)
		if err != nil {
			return err
		}
		f.Handler, f.Place = own, own.Index()
		f.Share = own.Slots().Share(settings.Concurrency)
	}
	return nil
}

func unknownFunc(name string, funcs handlers.Funcs) error {
	known := slices.Sorted(maps.Keys(funcs))
	if len(known) == 0 {
		return fmt.Errorf("this program has no Go function %q: build your own main that calls daemon.Main with daemon.WithFuncs", name)
	}
	return fmt.Errorf("this program has no Go function %q; it has: %v", name, known)
}

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
func (p *parts) openOutput(ctx context.Context, f *function, settings configs.Output) error {
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
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if h := cfg.Functions[name].Handler; h.Go != "" {
			if _, found := funcs[h.Go]; !found {
				errs = append(errs, fmt.Errorf("function %s: %w", name, unknownFunc(h.Go, funcs)))
			}
		}
		if n := cfg.Functions[name].Trigger.NATS; n != nil && !*n.Create {
			notes = append(notes, fmt.Sprintf("function %s moves rejected messages to the stream %s, which has to be there: %s", name, n.DeadLetters, natsjs.GraveyardCommand(n.DeadLetters, 1)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Apps)) {
		app := cfg.Apps[name]
		if app.Language == "" {
			notes = append(notes, fmt.Sprintf("app %s is used by no function", name))
			continue
		}
		interpreter, err := languages[app.Language].find(ctx, app, env)
		if err != nil {
			errs = append(errs, fmt.Errorf("app %s: %w", name, err))
			continue
		}
		notes = append(notes, fmt.Sprintf("app %s runs with %v", name, interpreter))
		more, err := checkConfinement(ctx, app, cfg.DataDir, interpreter, environ)
		if err != nil {
			errs = append(errs, fmt.Errorf("app %s: %w", name, err))
		}
		for _, note := range more {
			notes = append(notes, fmt.Sprintf("app %s: %s", name, note))
		}
	}
	return notes, errors.Join(errs...)
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

// of makes the spans of a function; nil where nothing is traced.
func (t *traces) of(function string, settings configs.Function) *dispatch.Spans {
	if t == nil {
		return nil
	}
	return dispatch.NewSpans(t.tracer, t.sample, function, sourceOf(settings.Trigger))
}
