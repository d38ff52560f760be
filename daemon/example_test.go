package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// quiet returns a configuration whose data is not in this directory, and turns off the log.
func quiet() (cfg *configs.Config, clean func()) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "drover-example-")
	if err != nil {
		panic(err)
	}
	cfg = configs.New()
	cfg.DataDir = dir
	return cfg, func() { _ = os.RemoveAll(dir) }
}

type Order struct {
	ID     int   `json:"id"`
	Prices []int `json:"prices"`
}

type Receipt struct {
	ID    int `json:"id"`
	Total int `json:"total"`
}

// A program runs a function until it is stopped, without a configuration file. Its messages come from
// a queue in memory; with settings.Trigger they would come from NATS, Azure or a timer.
func ExampleRun() {
	cfg, clean := quiet()
	defer clean()
	queue := memory.New(time.Minute)
	defer queue.Close()
	queue.Send(triggers.Message{Body: []byte(`{"id": 7, "prices": [5, 8]}`)})

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	orders := func(_ context.Context, o Order) error {
		fmt.Println("order", o.ID)
		stop() // a service stops at SIGTERM instead
		return nil
	}
	err := daemon.Run(ctx, cfg,
		daemon.WithFunction("orders", configs.Function{Timeout: configs.Duration(30 * time.Second)}, handlers.JSON(orders)),
		daemon.WithTrigger("orders", queue.Trigger()),
	)
	fmt.Println(err)
	// Output:
	// order 7
	// <nil>
}

// The settings of a function are the same as in a configuration file, with the same defaults and checks.
func ExampleWithFunction() {
	cfg, clean := quiet()
	defer clean()
	cfg.Connections = map[string]configs.Connection{"main": {NATS: configs.Strings{"nats://nats-0:4222", "nats://nats-1:4222"}}}
	orders := func(_ context.Context, o Order) (Receipt, error) {
		r := Receipt{ID: o.ID}
		for _, price := range o.Prices {
			r.Total += price
		}
		return r, nil
	}
	options := []daemon.Option{
		daemon.WithFunction("orders", configs.Function{
			Trigger:     configs.Trigger{NATS: &configs.NATSTrigger{Stream: "ORDERS", Subject: "orders.new"}},
			Output:      configs.Outputs{{NATS: &configs.NATSOutput{Subject: "receipts"}}},
			Concurrency: 64,
			Retry:       configs.Retry{MaxAttempts: 3, Initial: configs.Duration(time.Second)},
		}, handlers.JSONResult(orders)),
	}
	if _, err := daemon.Check(context.Background(), cfg, options...); err != nil { // connects to nothing
		fmt.Println(err)
		return
	}
	f := cfg.Functions["orders"]
	fmt.Println(f.Trigger)
	fmt.Println(f.Timeout, f.Retry.MaxAttempts)
	// Output:
	// consumer orders of stream ORDERS on main, subject orders.new, dead letters to ORDERS-DEAD
	// 5m 3
}

// lines is a source of messages that drover does not have: the values of a channel.
type lines <-chan string

// Receive waits for a message, and returns up to max of them.
func (l lines) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	select {
	case line, open := <-l:
		if !open {
			<-ctx.Done() // nothing comes any more
			return nil, ctx.Err()
		}
		m := &triggers.Message{ID: line, Body: []byte(line), Attempt: 1}
		return []*triggers.Delivery{triggers.NewDelivery(m, printing{})}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Backlog reports that the number of waiting messages is not known.
func (lines) Backlog(context.Context) (triggers.Backlog, error) {
	return triggers.Backlog{}, triggers.ErrUnknown
}

// Close closes the connection to the source, which a channel does not have.
func (lines) Close(context.Context) error { return nil }

// printing is the lease of a message: Settle carries out the verdict at the source.
type printing struct{}

func (printing) Settle(_ context.Context, m *triggers.Message, v triggers.Verdict) error {
	fmt.Printf("%s: %v, after %v, because of %q\n", m.ID, v.Kind, v.Delay, v.Reason) // ask the broker to do that
	return nil
}

// A trigger of the program has three methods, and its leases have one.
func ExampleWithTrigger() {
	cfg, clean := quiet()
	defer clean()
	source := make(chan string, 2)
	source <- "hello"
	source <- "spam"
	close(source)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	greet := handlers.Func(func(_ context.Context, m *triggers.Message) ([]byte, error) {
		if string(m.Body) == "spam" {
			stop()
			return nil, handlers.Reject(errors.New("not a greeting"))
		}
		return nil, nil
	})
	err := daemon.Run(ctx, cfg,
		daemon.WithFunction("greet", configs.Function{Concurrency: 1}, greet),
		daemon.WithTrigger("greet", lines(source)),
	)
	fmt.Println(err)
	// Unordered output:
	// hello: done, after 0s, because of ""
	// spam: reject, after 0s, because of "not a greeting"
	// <nil>
}

// mailer is a handler that holds a resource: it is closed after the last message.
type mailer struct {
	connection io.Closer
	sent       func()
}

// Handle runs the function on one message. It is called from many goroutines at once.
func (h *mailer) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	fmt.Printf("mail to %s\n", m.Body)
	h.sent()
	return nil, nil
}

// Close is called once, when all messages are settled.
func (h *mailer) Close(context.Context) error { return h.connection.Close() }

// server is a connection to a mail server.
type server struct{}

func (server) Close() error {
	fmt.Println("disconnected")
	return nil
}

// A handler of the program holds the state that its calls share, and is closed at the end.
func ExampleWithFunction_handler() {
	cfg, clean := quiet()
	defer clean()
	queue := memory.New(time.Minute)
	defer queue.Close()
	queue.Send(triggers.Message{Body: []byte("ann@example.com")})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	err := daemon.Run(ctx, cfg,
		daemon.WithFunction("mails", configs.Function{}, &mailer{server{}, stop}),
		daemon.WithTrigger("mails", queue.Trigger()),
	)
	fmt.Println(err)
	// Output:
	// mail to ann@example.com
	// disconnected
	// <nil>
}

// A service runs a daemon and an HTTP server. At SIGTERM both stop gracefully: the daemon stops receiving
// and waits for the messages in flight, at most for cfg.Drain.
func Example_service() {
	cfg, clean := quiet()
	defer clean()
	queue := memory.New(time.Minute)
	defer queue.Close()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.Drain = configs.Duration(20 * time.Second) // less than the service manager waits
	d := daemon.New(cfg,
		daemon.WithFunction("orders", configs.Function{}, handlers.JSON(func(_ context.Context, o Order) error {
			fmt.Println("order", o.ID)
			stop() // here instead of SIGTERM
			return nil
		})),
		daemon.WithTrigger("orders", queue.Trigger()),
	)
	site := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, d.InFlight(), "orders in flight")
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}

	var running sync.WaitGroup
	running.Go(func() {
		defer stop()                       // the service ends if the daemon does
		if err := d.Run(ctx); err != nil { // it could not start, or the drain time was too short
			slog.Error("drover has ended", "error", err)
		}
	})
	running.Go(func() { _ = site.Serve(listener) })
	queue.Send(triggers.Message{Body: []byte(`{"id": 7}`)})

	<-ctx.Done()
	_ = site.Shutdown(context.Background())
	running.Wait() // until everything in flight is settled
	fmt.Println(d.InFlight(), "in flight")
	// Output:
	// order 7
	// 0 in flight
}
