// Package azure has the commands that measure the Azure sources, against the emulators and beside the
// bare SDKs, and function apps.
package azure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/emulator"

	"github.com/drover-run/drover/bench/rig"
)

type ServiceBusCommand struct {
	Rounds   int    `default:"5" help:"Rounds; each runs both, in turn."`
	Messages int    `default:"100000" help:"Messages for each and round; a tenth of it with the delay."`
	Size     int    `default:"512" help:"Bytes of a message."`
	Only     string `enum:"all,speed,released,faults" default:"all" help:"all, or one part: speed, released, faults."`

	unseen int // messages that the SDK released
}

const (
	busSettlers = 64
	// busDelay is the delay that the proxy adds each way.
	busDelay = 10 * time.Millisecond
)

// Run measures drover against the emulator: its speed, and its behaviour at faults.
func (c *ServiceBusCommand) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.Messages < 5 || c.Size < 0 {
		return errors.New("--rounds must be at least 1, --messages 5, --size 0")
	}
	return rig.RunParts(ctx, c.Only, rig.Part{Name: "speed", Run: c.speed}, rig.Part{Name: "released", Run: c.loads}, rig.Part{Name: "faults", Run: c.faults})
}

// speed is receive, no-op and complete: the bare SDK with 64 goroutines that
// settle, and drover with 64 slots; on loopback, and with 20 ms added to each
// round trip.
func (c *ServiceBusCommand) speed(ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmessages/s\tratio\t")
	for _, delay := range []time.Duration{0, busDelay} {
		n := c.Messages
		if delay > 0 {
			n /= 10
		}
		bare, own, err := c.compare(ctx, n, delay)
		if err != nil {
			return err
		}
		if delay == 0 {
			fmt.Fprintf(w, "bare SDK, 64 settlers\t%.0f\t1\t\n", bare)
			fmt.Fprintf(w, "drover, 64 slots\t%.0f\t%.2f ÷ bare SDK\t\n", own, own/bare)
			continue
		}
		ideal := busSettlers / (2 * delay).Seconds()
		fmt.Fprintf(w, "ideal, 64 in flight, 20 ms round trip\t%.0f\t1\t\n", ideal)
		fmt.Fprintf(w, "bare SDK, the same\t%.0f\t%.2f ÷ ideal\t\n", bare, bare/ideal)
		fmt.Fprintf(w, "drover, the same\t%.0f\t%.2f ÷ ideal\t\n", own, own/ideal)
	}
	fmt.Fprintf(w, "released unseen in drover's rounds\t%d\t\t\n", c.unseen)
	return w.Flush()
}

// compare returns the medians of the rounds.
func (c *ServiceBusCommand) compare(ctx context.Context, n int, delay time.Duration) (bare, own float64, err error) {
	var rates [2][]float64
	for round := range c.Rounds {
		for i := range 2 {
			which := (i + round) % 2
			took, err := c.measure(ctx, n, delay, which == 1)
			if err != nil {
				return 0, 0, err
			}
			rate := float64(n) / took.Seconds()
			fmt.Fprintf(os.Stderr, "round %d of %d, delay %v: %s %.0f/s\n", round+1, c.Rounds, delay, []string{"bare SDK", "drover"}[which], rate)
			rates[which] = append(rates[which], rate)
		}
	}
	return rig.Median(rates[0]), rig.Median(rates[1]), nil
}

func BusAccess(connection string) *servicebus.Access {
	return &servicebus.Access{ConnectionString: func() (string, error) { return connection, nil }}
}

func (c *ServiceBusCommand) measure(ctx context.Context, n int, delay time.Duration, drover bool) (took time.Duration, err error) {
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() { _ = e.Serve(l) }()
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.CreateQueue("bench", emulator.QueueOptions{}); err != nil {
		return 0, err
	}
	sender, err := servicebus.NewSender(BusAccess(e.ConnectionString(l.Addr().String())), "bench")
	if err != nil {
		return 0, err
	}
	body := make([]byte, c.Size)
	for range n {
		if err := sender.Send(ctx, &triggers.Message{Body: body}); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(sender.Flush(ctx), sender.Close(ctx)); err != nil {
		return 0, err
	}
	address := l.Addr().String()
	if delay > 0 {
		p, err := rig.StartProxy(address, delay)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		address = p.Addr().String()
	}
	ctx, cancel := context.WithTimeout(ctx, rig.StuckAfter)
	defer cancel()
	if drover {
		defer func() {
			u, _ := e.Usage("bench") // the queue is there
			c.unseen += u.Released
		}()
		return busDrover(ctx, e.ConnectionString(address), n)
	}
	return busBare(ctx, e.ConnectionString(address), n)
}

// busBare is a loop that only receives, and goroutines that settle.
func busBare(ctx context.Context, connection string, n int) (took time.Duration, err error) {
	client, err := azservicebus.NewClientFromConnectionString(connection, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close(context.Background())) }()
	r, err := client.NewReceiverForQueue("bench", nil)
	if err != nil {
		return 0, err
	}
	if _, err := r.PeekMessages(ctx, 1, nil); err != nil { // the links are there
		return 0, err
	}
	queue := make(chan *azservicebus.ReceivedMessage, busSettlers)
	var failed atomic.Pointer[error]
	var settlers sync.WaitGroup
	for range busSettlers {
		settlers.Go(func() {
			for m := range queue {
				if err := r.CompleteMessage(ctx, m, nil); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	start := time.Now()
	for got := 0; got < n; {
		messages, err := r.ReceiveMessages(ctx, busSettlers, nil)
		if err != nil {
			failed.CompareAndSwap(nil, &err)
			break
		}
		for _, m := range messages {
			queue <- m
		}
		got += len(messages)
	}
	close(queue)
	settlers.Wait()
	took = time.Since(start)
	if p := failed.Load(); p != nil {
		return 0, *p
	}
	return took, nil
}

func busDrover(ctx context.Context, connection string, n int) (took time.Duration, err error) {
	d, stop, err := busDaemon(ctx, connection, busSettlers, rig.Noop)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	start := time.Now()
	err = rig.Until(ctx, func() bool { return d.Status()[0].Done >= int64(n) })
	return time.Since(start), err
}

// busDaemon is a daemon in this process with one function on the queue bench.
func busDaemon(ctx context.Context, connection string, slots int, run handlers.Func) (d *daemon.Daemon, stop func() error, err error) {
	return rig.StartDaemon(ctx, connection, handlers.Funcs{"run": run}, map[string]configs.Function{"bench": {
		Trigger: configs.Trigger{ServiceBus: &configs.ServiceBusTrigger{}}, Handler: configs.Handler{Go: "run"}, Concurrency: slots,
	}})
}
