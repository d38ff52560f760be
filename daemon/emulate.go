package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

type emulateCommand struct {
	Servicebus emulateBusCommand `cmd:"" help:"Be an Azure Service Bus namespace, for work on this machine, until SIGTERM or SIGINT."`
}

type emulateBusCommand struct {
	Listen        string        `default:"127.0.0.1:5672" help:"The address for AMQP, without TLS and without a check of keys (default: 127.0.0.1:5672)."`
	Queue         []string      `help:"A queue to have. May be repeated."`
	SessionQueue  []string      `help:"A queue with sessions to have. May be repeated."`
	Subscription  []string      `help:"A subscription to have, as TOPIC/NAME. May be repeated."`
	Lock          time.Duration `default:"1m" help:"How long a message is locked, at most 5m (default: 1m)."`
	MaxDeliveries uint32        `default:"10" help:"How often a message may fail before it goes to the dead letters (default: 10)."`
}

func (c *emulateBusCommand) run(ctx context.Context, std *IO) (err error) {
	if len(c.Queue)+len(c.SessionQueue)+len(c.Subscription) == 0 {
		return usageError("name what the namespace has: --queue NAME, --session-queue NAME, --subscription TOPIC/NAME")
	}
	if c.Lock <= 0 || c.Lock > 5*time.Minute {
		return usageError("--lock must be more than 0 and at most 5m, as on Azure")
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return usageError("--listen takes HOST:PORT, such as 127.0.0.1:5672: " + err.Error())
	}
	e := emulator.New(emulator.Options{Log: std.logger(configs.New().Log)})
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.create(e); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("%w; is another emulator there? --listen takes another address", err)
	}
	fmt.Fprintf(std.Out, "An Azure Service Bus namespace listens on %s. What is in it is gone when it ends.\n", l.Addr())
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		fmt.Fprintln(std.Out, "Careful: whoever reaches that address may read and write, since keys are not checked.")
	}
	for _, name := range append(append([]string(nil), c.Queue...), c.SessionQueue...) {
		fmt.Fprintln(std.Out, "  queue", name)
	}
	for _, name := range c.Subscription {
		fmt.Fprintln(std.Out, "  subscription", name)
	}
	fmt.Fprintln(std.Out, e.ConnectionString(l.Addr().String()))
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	return errors.Join(e.Close(), <-served)
}

// create makes what the namespace has.
func (c *emulateBusCommand) create(e *emulator.Emulator) error {
	o := emulator.QueueOptions{LockDuration: c.Lock, MaxDeliveryCount: c.MaxDeliveries}
	for _, name := range c.Queue {
		if err := e.CreateQueue(name, o); err != nil {
			return err
		}
	}
	for _, path := range c.Subscription {
		i := strings.LastIndexByte(path, '/')
		if i <= 0 {
			return usageError("--subscription takes TOPIC/NAME, not " + path)
		}
		if err := e.CreateTopic(path[:i]); err != nil && !errors.Is(err, emulator.ErrExists) {
			return err
		}
		if err := e.CreateSubscription(path[:i], path[i+1:], o); err != nil {
			return err
		}
	}
	o.RequiresSession = true
	for _, name := range c.SessionQueue {
		if err := e.CreateQueue(name, o); err != nil {
			return err
		}
	}
	return nil
}
