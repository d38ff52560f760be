package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/emulator"

	"github.com/drover-run/drover/bench/azure"
	"github.com/drover-run/drover/bench/rig"
)

type OrderCommand struct {
	Runs    int    `default:"100" help:"Runs for each source; in every second one, workers are killed."`
	Source  string `enum:"all,nats,servicebus" default:"all" help:"all, or one source that has order: nats, servicebus."`
	Keys    int    `default:"6" help:"Ordering keys of a run."`
	PerKey  int    `default:"40" help:"Messages of each key."`
	Kills   int    `default:"2" help:"Workers that are killed with SIGKILL in a run with kills."`
	Seed    uint64 `default:"1" help:"Seed of the failures and of the moments of the kills."`
	Verbose bool   `help:"Print each run, and the daemon's log."`
}

// orderApp writes a record when it starts on a message, and one when it ends. Some messages fail
// at first, some are rejected.
const orderApp = `import os, time, drover
runs = os.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "runs"), os.O_WRONLY | os.O_APPEND)
def order(message):
    key, n, fate = message.text().split()
    def record(what):
        os.write(runs, f"{key} {n} {what} {os.getpid()}\n".encode())
    record("start")
    time.sleep(0.001)
    if fate == "fail" and message.attempt == 1:
        raise RuntimeError("fails once")
    record("end")
    if fate == "reject":
        raise drover.Reject("as the bench says")
`

// orderRun is one run: its own source, a daemon, and its record.
type orderRun struct {
	name     string
	dir      string // of the app
	seed     uint64
	kill     bool
	prefetch string // as in the configuration
	send     func(ctx context.Context, all []triggers.Message) error

	connection, trigger string // in the configuration
	options             []daemon.Option
}

// Run counts violations of order: a message of a key that starts before an earlier message of that
// key has ended for good, done or rejected. What starts again after it has ended once is
// not counted: delivery is at least once.
func (c *OrderCommand) Run(ctx context.Context) error {
	if c.Runs < 1 || c.Keys < 1 || c.PerKey < 1 || c.Kills < 0 {
		return errors.New("--runs, --keys and --per-key must be at least 1, --kills at least 0")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "source\truns\twith kills\tkills\tmessages\tviolations\tnot handled\tmedian run\t")
	source := func(kind string, with func(context.Context, func(orderSource) error) error) rig.Part {
		return rig.Part{Name: kind, Run: func(ctx context.Context) error {
			return with(ctx, func(s orderSource) error { return c.source(ctx, kind, s, w) })
		}}
	}
	err := rig.RunParts(ctx, c.Source, source("nats", withOrderNATS), source("servicebus", withOrderBus))
	return errors.Join(err, w.Flush())
}

// orderSource prepares the source of a run.
type orderSource func(ctx context.Context, r *orderRun) error

func (c *OrderCommand) source(ctx context.Context, kind string, prepare orderSource, w io.Writer) error {
	var violations, missing, killed, withKills int
	var took []time.Duration
	for i := range c.Runs {
		r := &orderRun{name: fmt.Sprintf("order%d", i), seed: c.Seed + uint64(i), kill: i%2 == 1, prefetch: []string{"auto", "0"}[i/2%2]}
		if err := prepare(ctx, r); err != nil {
			return err
		}
		began := time.Now()
		v, m, k, err := c.run(ctx, r, i/4%2 == 0)
		if err != nil {
			return fmt.Errorf("%s, run %d, seed %d: %w", kind, i, r.seed, err)
		}
		took = append(took, time.Since(began))
		violations, missing, killed = violations+v, missing+m, killed+k
		if r.kill {
			withKills++
		}
		if c.Verbose || v+m > 0 {
			fmt.Fprintf(os.Stderr, "%s: run %d, seed %d, prefetch %s: %d kills, %d violations, %d not handled, %v\n", kind, i, r.seed, r.prefetch, k, v, m, took[i].Round(time.Millisecond))
		}
	}
	_, err := fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f s\t\n", kind, c.Runs, withKills, killed, c.Runs*c.Keys*c.PerKey, violations, missing, rig.Median(took).Seconds())
	return err
}

// run sends the messages, all before the daemon starts or in batches, and judges the record.
func (c *OrderCommand) run(ctx context.Context, r *orderRun, backlog bool) (violations, missing, kills int, err error) {
	ctx, cancel := context.WithTimeout(ctx, rig.StuckAfter)
	defer cancel()
	if r.dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	for name, text := range map[string]string{"function_app.py": orderApp, "runs": ""} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return 0, 0, 0, err
		}
	}
	random := rand.New(rand.NewPCG(r.seed, 0))
	var all []triggers.Message
	for n := range c.PerKey {
		for k := range c.Keys {
			fate := "done"
			switch roll := random.IntN(100); {
			case roll < 5:
				fate = "fail"
			case roll < 8:
				fate = "reject"
			}
			key := fmt.Sprint("key", k)
			all = append(all, triggers.Message{OrderingKey: key, Subject: r.name + "." + key, Body: fmt.Appendf(nil, "%s %d %s", key, n, fate)})
		}
	}
	if backlog {
		if err := r.send(ctx, all); err != nil {
			return 0, 0, 0, err
		}
	}
	stop, err := c.daemon(ctx, r)
	if err != nil {
		return 0, 0, 0, err
	}
	var sending sync.WaitGroup
	var sent error
	if !backlog {
		sending.Go(func() {
			for batch := range slices.Chunk(all, 1+len(all)/8) {
				sent = errors.Join(sent, r.send(ctx, batch))
			}
		})
	}
	judge, kills, err := r.watch(ctx, len(all), c.Kills, random)
	sending.Wait()
	err = errors.Join(err, sent, stop())
	if judge == nil {
		return 0, 0, kills, err
	}
	return judge.violations, len(all) - judge.ended, kills, err
}

// daemon starts a daemon with the function.
func (c *OrderCommand) daemon(ctx context.Context, r *orderRun) (stop func() error, err error) {
	text := fmt.Sprintf(`version: 1
data_dir: data
connections: {source: %s}
functions:
  order:
    trigger: {%s}
    handler: {python: {path: ., processes: 2, threads: 4}}
    retry: {max_attempts: 20, initial: 10ms, max: 50ms}
    prefetch: %s
`, r.connection, r.trigger, r.prefetch)
	file := filepath.Join(r.dir, "drover.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cfg, err := configs.Load(file, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	if c.Verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	running, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := daemon.New(cfg, append(r.options, daemon.WithLogger(log), daemon.WithEnv(os.LookupEnv, os.Environ), daemon.WithReady(func() { close(ready) }))...)
	go func() { ended <- d.Run(running) }()
	select {
	case <-ready:
		return func() error { cancel(); return <-ended }, nil
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("starting drover: %w", err)
	}
}

// watch reads the record until n messages have ended. It kills workers that have written
// records, at moments between.
func (r *orderRun) watch(ctx context.Context, n, kills int, random *rand.Rand) (judge *orderJudge, killed int, err error) {
	var moments []int
	for range kills {
		moments = append(moments, random.IntN(n))
	}
	slices.Sort(moments)
	if !r.kill {
		moments = nil
	}
	file, err := os.Open(filepath.Join(r.dir, "runs"))
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	judge = &orderJudge{over: make(map[string]map[int]bool), next: make(map[string]int)}
	lines := bufio.NewReader(file)
	var line []byte
	for {
		part, err := lines.ReadBytes('\n')
		if line = append(line, part...); err == nil {
			judge.line(string(line))
			line = line[:0]
			continue
		}
		if !errors.Is(err, io.EOF) {
			return judge, killed, err
		}
		if len(moments) > 0 && judge.ended >= moments[0] && judge.worker > 0 && syscall.Kill(judge.worker, syscall.SIGKILL) == nil {
			killed++
			moments, judge.worker = moments[1:], 0
		}
		if judge.ended == n {
			return judge, killed, nil
		}
		if rig.Pause(ctx, 2*time.Millisecond) != nil {
			return judge, killed, nil // the caller counts the messages that have not ended
		}
	}
}

// orderJudge reads the record of a run.
type orderJudge struct {
	over       map[string]map[int]bool // per key: the numbers of finished messages
	next       map[string]int          // per key: all messages before it have finished
	violations int
	ended      int // messages
	worker     int // the last writer
}

func (j *orderJudge) line(text string) {
	var key, what string
	var n, pid int
	if _, err := fmt.Sscan(text, &key, &n, &what, &pid); err != nil {
		return
	}
	j.worker = pid
	if j.over[key] == nil {
		j.over[key] = make(map[int]bool)
	}
	switch what {
	case "start":
		if n > j.next[key] && !j.over[key][n] {
			j.violations++
		}
	case "end":
		if !j.over[key][n] {
			j.over[key][n] = true
			j.ended++
		}
		for j.over[key][j.next[key]] {
			j.next[key]++
		}
	}
}

// withOrderNATS runs over an embedded server.
func withOrderNATS(ctx context.Context, do func(orderSource) error) error {
	return rig.WithServer(ctx, "off", func(server rig.Server) error {
		js, err := jetstream.New(server.Connection.Conn())
		if err != nil {
			return err
		}
		return do(func(ctx context.Context, r *orderRun) error {
			r.connection, r.options = "{nats: embedded}", []daemon.Option{daemon.WithConnection("source", server.Connection)}
			r.trigger = fmt.Sprintf("nats: {stream: %s, subject: %q, consumer: order, create: true, ordering_token: 2}", r.name, r.name+".*")
			r.send = func(ctx context.Context, all []triggers.Message) error {
				s := server.Connection.NewSender()
				for _, m := range all {
					if err := s.Send(ctx, &m); err != nil {
						return err
					}
				}
				return s.Flush(ctx)
			}
			_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: r.name, Subjects: []string{r.name + ".*"}, Retention: jetstream.WorkQueuePolicy})
			return err
		})
	})
}

// withOrderBus runs over the Service Bus emulator.
func withOrderBus(_ context.Context, do func(orderSource) error) (err error) {
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, e.Close())
	}
	go func() { _ = e.Serve(l) }() // until the emulator is closed
	defer func() { err = errors.Join(err, e.Close()) }()
	connection := e.ConnectionString(l.Addr().String())
	return do(func(_ context.Context, r *orderRun) error {
		r.connection, r.trigger = fmt.Sprintf("{connection_string: %q}", connection), fmt.Sprintf("servicebus: {queue: %s, sessions: true}", r.name)
		r.send = func(ctx context.Context, all []triggers.Message) (err error) {
			s, err := servicebus.NewSender(azure.BusAccess(connection), r.name)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
			for _, m := range all {
				if err := s.Send(ctx, &triggers.Message{Body: m.Body, OrderingKey: m.OrderingKey}); err != nil {
					return err
				}
			}
			return s.Flush(ctx)
		}
		return e.CreateQueue(r.name, emulator.QueueOptions{RequiresSession: true, MaxDeliveryCount: 1000})
	})
}
