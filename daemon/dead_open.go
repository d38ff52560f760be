package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/storagequeue"
)

// openDeadLetters reaches the dead letters of a function, at their source; shared
// replays also to what others read. The kinds of sources are here.
func openDeadLetters(ctx context.Context, cfg *configs.Config, function string, shared bool, log *slog.Logger) (triggers.DeadLetters, func() error, error) {
	settings, found := cfg.Functions[function]
	if !found {
		return nil, nil, noFunction(cfg, function)
	}
	if q := settings.Trigger.StorageQueue; q != nil {
		return openDeadStorage(cfg, q)
	}
	if bus := settings.Trigger.ServiceBus; bus != nil {
		return openDeadBus(cfg, bus, shared)
	}
	return openDeadNATS(ctx, cfg, settings.Trigger.NATS, shared, log)
}

func noFunction(cfg *configs.Config, name string) error {
	names := slices.Sorted(maps.Keys(cfg.Functions))
	hint := ""
	if near := configs.Nearest(name, names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return fmt.Errorf("there is no function %s in the configuration%s; it has: %s", term.Printable(name), hint, strings.Join(names, ", "))
}

func openDeadStorage(cfg *configs.Config, q *configs.StorageQueueTrigger) (triggers.DeadLetters, func() error, error) {
	account, err := storageAccount(q.Connection, cfg.Connections[q.Connection])
	if err != nil {
		return nil, nil, err
	}
	d, err := storagequeue.OpenDeadLetters(storagequeue.DeadLettersConfig{
		Account: account, Queue: q.Queue, PoisonQueue: q.PoisonQueue, PoisonFormat: storagequeue.PoisonFormat(q.PoisonFormat), Encoding: storagequeue.Encoding(q.Encoding),
	})
	return d, func() error { account.Close(); return nil }, err
}

func openDeadBus(cfg *configs.Config, bus *configs.ServiceBusTrigger, shared bool) (triggers.DeadLetters, func() error, error) {
	access, err := busAccess(bus.Connection, cfg.Connections[bus.Connection])
	if err != nil {
		return nil, nil, err
	}
	d, err := servicebus.OpenDeadLetters(servicebus.DeadLettersConfig{
		Access: access, Queue: bus.Queue, Topic: bus.Topic, Subscriptions: bus.Subscription, Sessions: bus.Sessions, Shared: shared,
	})
	return d, func() error { return nil }, err
}

func openDeadNATS(ctx context.Context, cfg *configs.Config, n *configs.NATSTrigger, shared bool, log *slog.Logger) (triggers.DeadLetters, func() error, error) {
	if cfg.Connections[n.Connection].Embedded() {
		if _, err := os.Stat(embeddedDir(cfg, n.Connection)); errors.Is(err, fs.ErrNotExist) {
			return noDead{}, func() error { return nil }, nil // a look must not make it
		}
	}
	c, _, done, err := reachNATS(ctx, cfg, n.Connection, log)
	if err != nil {
		return nil, nil, err
	}
	d, err := natsjs.OpenDeadLetters(ctx, c, natsjs.DeadLettersConfig{Stream: n.Stream, DeadLetters: n.DeadLetters, OrderingToken: n.OrderingToken, Shared: shared})
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return d, done, nil
}

// noDead is the dead letters of a source that was never used.
type noDead struct{ triggers.DeadLetters }

// Browse implements triggers.DeadLetters.
func (noDead) Browse(context.Context, int) ([]triggers.DeadLetter, error) { return nil, nil }

// Close implements triggers.DeadLetters.
func (noDead) Close(context.Context) error { return nil }
