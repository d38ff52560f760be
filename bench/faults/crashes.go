package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"

	"github.com/drover-run/drover/bench/rig"
)

type CrashesCommand struct {
	For   time.Duration `default:"100s" help:"How long messages are sent."`
	Rate  int           `default:"100" help:"Messages a second; the function can do 800."`
	Every time.Duration `default:"4s" help:"Time between two messages that crash their worker."`
	Keep  bool          `help:"Keep the directory with the log of the daemon and the record of the runs."`
}

// crashesApp does 16 messages at once, of 20 ms each: 800 a second.
const crashesApp = `import ctypes, os, time
runs = os.open(os.environ["BENCH_RUNS"], os.O_WRONLY | os.O_APPEND)
def bench(message):
    n, kind = message.text().split()
    if kind == "crash": ctypes.string_at(0)
    time.sleep(0.02)
    os.write(runs, b"%s %03d\n" % (n.encode(), min(message.attempt, 999)))
`

const crashesConfig = `version: 1
data_dir: data
connections: {local: {nats: %q, token: %q}}
functions:
  bench:
    trigger: {nats: {create: true}}
    handler: {python: {path: ., processes: 2, threads: 8}}
    retry: {max_attempts: 5, initial: 500ms}
`

// Run sends at a steady rate, with a message now and then that crashes its worker, and
// counts the messages that are done when sending ends.
func (c *CrashesCommand) Run(ctx context.Context) (err error) {
	if c.Rate < 1 || c.Every <= 0 || c.For < c.Every {
		return errors.New("--rate must be at least 1, --for as long as --every")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	store, err := os.MkdirTemp("", "drover-bench-")
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	server, err := embedded.Start(ctx, embedded.Config{Dir: store, Listen: address, Sync: 2 * time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	config := fmt.Sprintf(crashesConfig, "nats://"+address, "file:"+filepath.Join(store, "token"))
	r, err := openDrover(ctx, map[string]string{"drover.yaml": config, "function_app.py": crashesApp})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil || c.Keep {
			fmt.Fprintln(os.Stderr, "the log and the runs are in", r.dir)
			return
		}
		err = os.RemoveAll(r.dir)
	}()
	if err := r.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := rig.Until(ctx, func() bool { return r.command(ctx, "health").Run() == nil }); err != nil {
		return err
	}
	conn, err := client.ConnectInProcess(ctx, server, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	sent, crashes, err := c.send(ctx, conn.NewSender())
	if err != nil {
		return err
	}
	runs, err := r.read()
	if err != nil {
		return err
	}
	charged := 0
	for _, attempt := range runs {
		if attempt > 1 {
			charged++
		}
	}
	fmt.Printf("sent %d, of which %d crash; done when sending ended: %d, %.3f of those sent; innocents charged: %d\n",
		sent, crashes, len(runs), float64(len(runs))/float64(sent), charged)
	return nil
}

// send sends at the rate, by the clock.
func (c *CrashesCommand) send(ctx context.Context, to *client.Sender) (sent, crashes int, err error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began, crash := time.Now(), c.Every
	for time.Since(began) < c.For {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sent, crashes, ctx.Err()
		}
		for due := int(time.Since(began).Seconds() * float64(c.Rate)); sent < due; sent++ {
			kind := "ok"
			if time.Since(began) >= crash {
				kind, crash, crashes = "crash", crash+c.Every, crashes+1
			}
			if err := to.Send(ctx, &triggers.Message{Subject: "bench", Body: fmt.Appendf(nil, "%07d %s", sent, kind)}); err != nil {
				return sent, crashes, err
			}
		}
	}
	return sent, crashes, to.Flush(ctx)
}
