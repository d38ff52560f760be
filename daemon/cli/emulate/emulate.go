// Package emulate runs emulators of Azure services, with the flags of `drover emulate`. They
// keep messages in memory.
package emulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	storageemulator "github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// Bus is an emulated namespace of Azure Service Bus.
type Bus struct {
	Listen       string   `default:"127.0.0.1:5672" help:"Listen on this address for AMQP and the management API, without TLS; keys are not checked (default: 127.0.0.1:5672)."`
	Queue        []string `help:"Create this queue. May be repeated."`
	SessionQueue []string `help:"Create this queue with sessions. May be repeated."`
	Subscription []string `help:"Create this subscription, as TOPIC/NAME. May be repeated."`

	SessionSubscription []string `help:"Create this subscription with sessions, as TOPIC/NAME. May be repeated."`

	Lock          time.Duration `default:"1m" help:"Lock received messages for this long, at most 5m (default: 1m)."`
	MaxDeliveries uint32        `default:"10" help:"Dead-letter a message after this many deliveries (default: 10)."`
}

// Run serves until ctx ends. The last line that it prints is the connection string.
func (c *Bus) Run(ctx context.Context, out io.Writer, log *slog.Logger) (err error) {
	if c.Lock <= 0 || c.Lock > 5*time.Minute {
		return exit.UsageError("--lock must be more than 0 and at most 5m, as on Azure")
	}
	e := emulator.New(emulator.Options{Log: log})
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.CreateEntities(e); err != nil {
		return err
	}
	l, err := openListener(ctx, c.Listen, "An Azure Service Bus namespace", out)
	if err != nil {
		return err
	}
	for _, name := range append(append([]string(nil), c.Queue...), c.SessionQueue...) {
		fmt.Fprintln(out, "  queue", name)
	}
	for _, name := range append(append([]string(nil), c.Subscription...), c.SessionSubscription...) {
		fmt.Fprintln(out, "  subscription", name)
	}
	if len(c.Queue)+len(c.SessionQueue)+len(c.Subscription)+len(c.SessionSubscription) == 0 {
		fmt.Fprintln(out, "  no queue or topic yet: create them with --queue, --session-queue, --subscription or --session-subscription, or set create: true in a trigger")
	}
	fmt.Fprintln(out, e.ConnectionString(l.Addr().String()))
	return serveUntil(ctx, e, l)
}

// openListener listens on an address, and prints what listens there.
func openListener(ctx context.Context, address, what string, out io.Writer) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, exit.UsageError("--listen takes HOST:PORT, such as 127.0.0.1:5672: " + err.Error())
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; is another emulator running? Choose another address with --listen", err)
	}
	fmt.Fprintf(out, "%s listens on %s. It keeps messages in memory only.\n", what, l.Addr())
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		fmt.Fprintln(out, "Warning: anyone who can reach that address can read and write, since keys are not checked.")
	}
	return l, nil
}

// emulated is an emulator.
type emulated interface {
	Serve(l net.Listener) error
	Close() error
}

// serveUntil serves until ctx ends.
func serveUntil(ctx context.Context, e emulated, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	return errors.Join(e.Close(), <-served)
}

// Storage is an emulated account of Azure Storage with its queues.
type Storage struct {
	Listen string   `default:"127.0.0.1:10001" help:"Listen on this address, without TLS; keys are not checked (default: 127.0.0.1:10001, the address of UseDevelopmentStorage=true)."`
	Queue  []string `help:"Create this queue. May be repeated."`
}

// Run serves until ctx ends. The last line that it prints is the connection string.
func (c *Storage) Run(ctx context.Context, out io.Writer, log *slog.Logger) (err error) {
	e := storageemulator.New(storageemulator.Options{Log: log})
	for _, name := range c.Queue {
		if err := e.CreateQueue(name); err != nil {
			return exit.UsageError("--queue: " + err.Error())
		}
	}
	l, err := openListener(ctx, c.Listen, "An Azure Storage account with its queues", out)
	if err != nil {
		return err
	}
	for _, name := range c.Queue {
		fmt.Fprintln(out, "  queue", name)
	}
	if len(c.Queue) == 0 {
		fmt.Fprintln(out, "  no queue yet: create one with --queue, or set create: true in a trigger")
	}
	fmt.Fprintln(out, storageemulator.ConnectionString(l.Addr().String()))
	return serveUntil(ctx, e, l)
}

// CreateEntities creates the queues, topics and subscriptions of the flags.
func (c *Bus) CreateEntities(e *emulator.Emulator) error {
	o := emulator.QueueOptions{LockDuration: c.Lock, MaxDeliveryCount: c.MaxDeliveries}
	for _, name := range c.Queue {
		if err := e.CreateQueue(name, o); err != nil {
			return err
		}
	}
	sessions := o
	sessions.RequiresSession = true
	for _, path := range append(append([]string(nil), c.Subscription...), c.SessionSubscription...) {
		i := strings.LastIndexByte(path, '/')
		if i <= 0 {
			return exit.UsageError("a subscription is named as TOPIC/NAME, not " + path)
		}
		if err := e.CreateTopic(path[:i]); err != nil && !errors.Is(err, emulator.ErrExists) {
			return err
		}
		with := o
		if slices.Contains(c.SessionSubscription, path) {
			with = sessions
		}
		if err := e.CreateSubscription(path[:i], path[i+1:], with); err != nil {
			return err
		}
	}
	for _, name := range c.SessionQueue {
		if err := e.CreateQueue(name, sessions); err != nil {
			return err
		}
	}
	return nil
}
