package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	storageemulator "github.com/drover-run/drover/triggers/storagequeue/emulator"
)

type emulateCommand struct {
	Storage emulateStorageCommand `cmd:"" name:"storagequeue" help:"Run a local emulator of Azure Storage queues until SIGTERM or SIGINT."`

	Bus emulateBusCommand `cmd:"" name:"servicebus" help:"Run a local emulator of Azure Service Bus until SIGTERM or SIGINT."`
}

type emulateBusCommand struct {
	Listen       string   `default:"127.0.0.1:5672" help:"Listen on this address for AMQP and the management API, without TLS; keys are not checked (default: 127.0.0.1:5672)."`
	Queue        []string `help:"Create this queue. May be repeated."`
	SessionQueue []string `help:"Create this queue with sessions. May be repeated."`
	Subscription []string `help:"Create this subscription, as TOPIC/NAME. May be repeated."`

	SessionSubscription []string `help:"Create this subscription with sessions, as TOPIC/NAME. May be repeated."`

	Lock          time.Duration `default:"1m" help:"Lock received messages for this long, at most 5m (default: 1m)."`
	MaxDeliveries uint32        `default:"10" help:"Dead-letter a message after this many deliveries (default: 10)."`
}

func (*emulateBusCommand) Help() string {
	return `The last line printed is the connection string.

Example:

    drover emulate servicebus --queue orders --subscription events/billing
`
}

func (c *emulateBusCommand) Run(ctx context.Context, std *IO) (err error) {
	if c.Lock <= 0 || c.Lock > 5*time.Minute {
		return exit.UsageError("--lock must be more than 0 and at most 5m, as on Azure")
	}
	e := emulator.New(emulator.Options{Log: std.logger(configs.New().Log)})
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.create(e); err != nil {
		return err
	}
	l, err := listenToEmulate(ctx, c.Listen, "An Azure Service Bus namespace", std)
	if err != nil {
		return err
	}
	for _, name := range append(append([]string(nil), c.Queue...), c.SessionQueue...) {
		fmt.Fprintln(std.Out, "  queue", name)
	}
	for _, name := range append(append([]string(nil), c.Subscription...), c.SessionSubscription...) {
		fmt.Fprintln(std.Out, "  subscription", name)
	}
	if len(c.Queue)+len(c.SessionQueue)+len(c.Subscription)+len(c.SessionSubscription) == 0 {
		fmt.Fprintln(std.Out, "  nothing yet: --queue, --session-queue, --subscription and --session-subscription have it begin with something, and create: true in a trigger makes what is missing")
	}
	fmt.Fprintln(std.Out, e.ConnectionString(l.Addr().String()))
	return serveUntil(ctx, e, l)
}

// listenToEmulate takes an address, and says what is there.
func listenToEmulate(ctx context.Context, address, what string, std *IO) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, exit.UsageError("--listen takes HOST:PORT, such as 127.0.0.1:5672: " + err.Error())
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; is another emulator running? Choose another address with --listen", err)
	}
	fmt.Fprintf(std.Out, "%s listens on %s. It keeps messages in memory only.\n", what, l.Addr())
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		fmt.Fprintln(std.Out, "Warning: anyone who can reach that address can read and write, since keys are not checked.")
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

type emulateStorageCommand struct {
	Listen string   `default:"127.0.0.1:10001" help:"Listen on this address, without TLS; keys are not checked (default: 127.0.0.1:10001, the address of UseDevelopmentStorage=true)."`
	Queue  []string `help:"Create this queue. May be repeated."`
}

func (*emulateStorageCommand) Help() string {
	return `The last line printed is the connection string. At the default address, UseDevelopmentStorage=true works, too.

Example:

    drover emulate storagequeue --queue images
`
}

func (c *emulateStorageCommand) Run(ctx context.Context, std *IO) (err error) {
	e := storageemulator.New(storageemulator.Options{Log: std.logger(configs.New().Log)})
	for _, name := range c.Queue {
		if err := e.CreateQueue(name); err != nil {
			return exit.UsageError("--queue: " + err.Error())
		}
	}
	l, err := listenToEmulate(ctx, c.Listen, "An Azure Storage account with its queues", std)
	if err != nil {
		return err
	}
	for _, name := range c.Queue {
		fmt.Fprintln(std.Out, "  queue", name)
	}
	if len(c.Queue) == 0 {
		fmt.Fprintln(std.Out, "  no queue yet: --queue has it begin with one, and create: true in a trigger makes what is missing")
	}
	fmt.Fprintln(std.Out, storageemulator.ConnectionString(l.Addr().String()))
	return serveUntil(ctx, e, l)
}

// create makes what the namespace has.
func (c *emulateBusCommand) create(e *emulator.Emulator) error {
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
