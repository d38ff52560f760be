package azure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"

	"github.com/drover-run/drover/bench/rig"

	"github.com/drover-run/drover/bench/proc"
)

type StorageCommand struct {
	Rounds   int           `default:"5" help:"Rounds; each runs both, in turn."`
	Messages int           `default:"50000" help:"Messages for each and round; half of it with the delay."`
	Size     int           `default:"512" help:"Bytes of a message."`
	Only     string        `enum:"all,speed,killed,idle" default:"all" help:"all, or one part: speed, killed, idle."`
	Idle     time.Duration `default:"10m" help:"How long the idle part is idle, and the long function runs."`
}

const (
	// storageBatch is the most that a get brings.
	storageBatch = 32
	storageDelay = 10 * time.Millisecond // each way
	idleQueues   = 50
)

// Run measures drover against the emulator.
func (c *StorageCommand) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.Messages < 5 || c.Size < 0 || c.Idle < time.Second {
		return errors.New("--rounds must be at least 1, --messages 5, --size 0, --idle 1s")
	}
	return rig.RunParts(ctx, c.Only, rig.Part{Name: "speed", Run: c.speed}, rig.Part{Name: "killed", Run: c.killed}, rig.Part{Name: "idle", Run: c.idle})
}

// speed is receive, no-op and delete: the bare SDK with one goroutine that gets
// and as many that delete as a get brings, and drover with as many slots; with
// 20 ms added to each round trip 64 of them.
func (c *StorageCommand) speed(ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmessages/s\tratio\tto reach\t")
	rates, err := c.compare(ctx, c.Messages, storageBatch, 0, sdk, own)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "bare SDK, 32 a get, 32 deleters\t%.0f\t1\t\t\n", rates[sdk])
	fmt.Fprintf(w, "drover, 32 slots\t%.0f\t%.2f ÷ bare SDK\t0.9\t\n", rates[own], rates[own]/rates[sdk])
	const slots = 64
	rates, err = c.compare(ctx, c.Messages/2, slots, storageDelay, sdk, own, deletes)
	if err != nil {
		return err
	}
	ideal := slots / (2 * storageDelay).Seconds()
	fmt.Fprintf(w, "ideal, 64 in flight, 20 ms round trip\t%.0f\t1\t\t\n", ideal)
	for _, line := range []struct {
		what, reach string
		rate        float64
	}{
		{"bare SDK, one getter, 64 deleters, the same", "", rates[sdk]}, {"bare SDK, 64 deleters and no gets, the same", "", rates[deletes]},
		{"drover, 64 slots, the same", "0.85", rates[own]},
	} {
		fmt.Fprintf(w, "%s\t%.0f\t%.2f ÷ ideal\t%s\t\n", line.what, line.rate, line.rate/ideal, line.reach)
	}
	return w.Flush()
}

// The programs that are compared.
const (
	sdk     = "bare SDK"
	own     = "drover"
	deletes = "bare SDK, deletes alone"
)

// compare returns the medians of the rounds.
func (c *StorageCommand) compare(ctx context.Context, n, slots int, delay time.Duration, who ...string) (map[string]float64, error) {
	rates := make(map[string][]float64)
	for round := range c.Rounds {
		for i := range who {
			which := who[(i+round)%len(who)]
			took, err := c.measure(ctx, n, slots, delay, which)
			if err != nil {
				return nil, err
			}
			rate := float64(n) / took.Seconds()
			fmt.Fprintf(os.Stderr, "round %d of %d, delay %v: %s %.0f/s\n", round+1, c.Rounds, delay, which, rate)
			rates[which] = append(rates[which], rate)
		}
	}
	out := make(map[string]float64)
	for which, all := range rates {
		out[which] = rig.Median(all)
	}
	return out, nil
}

// StorageServer is an emulator with queues.
func StorageServer(queues ...string) (e *emulator.Emulator, address string, err error) {
	e = emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	go func() { _ = e.Serve(l) }()
	for _, name := range queues {
		err = errors.Join(err, e.CreateQueue(name))
	}
	return e, l.Addr().String(), err
}

func (c *StorageCommand) send(ctx context.Context, connection, queue string, n int) error {
	account := storagequeue.NewAccount(storagequeue.Access{ConnectionString: func() (string, error) { return connection, nil }})
	defer account.Close()
	s, err := storagequeue.NewSender(storagequeue.SenderConfig{Account: account, Queue: queue, Encoding: storagequeue.Base64})
	if err != nil {
		return err
	}
	body := make([]byte, c.Size)
	for range n {
		if err := s.Send(ctx, &triggers.Message{Body: body}); err != nil {
			return err
		}
	}
	return s.Flush(ctx)
}

func (c *StorageCommand) measure(ctx context.Context, n, slots int, delay time.Duration, which string) (took time.Duration, err error) {
	e, address, err := StorageServer("bench")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.send(ctx, emulator.ConnectionString(address), "bench", n); err != nil {
		return 0, err
	}
	direct := emulator.ConnectionString(address)
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
	if which != own {
		from := emulator.ConnectionString(address)
		if which == deletes {
			return storageBare(ctx, direct, from, n, slots)
		}
		return storageBare(ctx, from, from, n, slots)
	}
	d, stop, err := rig.StartDaemon(ctx, emulator.ConnectionString(address), handlers.Funcs{"run": rig.Noop}, map[string]configs.Function{"bench": {
		Trigger: configs.Trigger{StorageQueue: &configs.StorageQueueTrigger{}}, Handler: configs.Handler{Go: "run"}, Concurrency: slots,
	}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	start := time.Now()
	err = rig.Until(ctx, func() bool { return d.Status()[0].Done >= int64(n) })
	return time.Since(start), err
}

// storageBare is a loop that only gets, and goroutines that delete, over the same
// connection string or another; over another all is got before the clock starts.
func storageBare(ctx context.Context, gets, deletes string, n, deleters int) (took time.Duration, err error) {
	// The SDK's own transport keeps ten connections: it would open and close them
	// all the time.
	web := http.DefaultTransport.(*http.Transport).Clone()
	web.MaxIdleConns, web.MaxIdleConnsPerHost = 2*deleters, 2*deleters
	defer web.CloseIdleConnections()
	o := &azqueue.ClientOptions{}
	o.Transport = &http.Client{Transport: web}
	from, err := azqueue.NewQueueClientFromConnectionString(gets, "bench", o)
	if err != nil {
		return 0, err
	}
	q, err := azqueue.NewQueueClientFromConnectionString(deletes, "bench", o)
	if err != nil {
		return 0, err
	}
	if _, err := q.PeekMessage(ctx, nil); err != nil { // the connection is there
		return 0, err
	}
	queue := make(chan *azqueue.DequeuedMessage, deleters)
	ahead := gets != deletes
	if ahead {
		queue = make(chan *azqueue.DequeuedMessage, n)
	}
	begin := make(chan struct{})
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range deleters {
		all.Go(func() {
			<-begin
			for m := range queue {
				if _, err := q.DeleteMessage(ctx, *m.MessageID, *m.PopReceipt, nil); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	batch, lease := int32(storageBatch), int32(time.Hour/time.Second)
	start := time.Now()
	if !ahead {
		close(begin)
	}
	for got := 0; got < n; {
		r, err := from.DequeueMessages(ctx, &azqueue.DequeueMessagesOptions{NumberOfMessages: &batch, VisibilityTimeout: &lease})
		if err != nil {
			failed.CompareAndSwap(nil, &err)
			break
		}
		for _, m := range r.Messages {
			queue <- m
		}
		got += len(r.Messages)
	}
	close(queue)
	if ahead {
		start = time.Now()
		close(begin)
	}
	all.Wait()
	took = time.Since(start)
	if p := failed.Load(); p != nil {
		return 0, *p
	}
	return took, nil
}

// killed kills daemons with the default lease of 30 s.
func (c *StorageCommand) killed(ctx context.Context) (err error) {
	e, address, err := StorageServer("bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.send(ctx, emulator.ConnectionString(address), "bench", 1); err != nil {
		return err
	}
	middle, worst, err := kills(ctx, emulator.ConnectionString(address), "storage_queue: {}", c.Rounds)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "what\tfigure\tto reach\t")
	fmt.Fprintf(w, "kill -9, 30 s lease: until the message runs again\t%.1f s (worst %.1f)\t35 s\t\n", middle.Seconds(), worst.Seconds())
	return w.Flush()
}

// idle is what queues without messages cost, and how soon the first one is seen;
// and, beside it, a function that takes much longer than the lease.
func (c *StorageCommand) idle(ctx context.Context) (err error) {
	var names []string
	for i := range idleQueues {
		names = append(names, fmt.Sprintf("idle-%d", i))
	}
	long, longAddress, err := StorageServer("bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, long.Close()) }()
	few, fewAddress, err := StorageServer(names[:c.Rounds]...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, few.Close()) }()
	many, manyAddress, err := StorageServer(names...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, many.Close()) }()

	// A function of ten minutes.
	var runs atomic.Int64
	longDaemon, stopLong, err := rig.StartDaemon(ctx, emulator.ConnectionString(longAddress), handlers.Funcs{"run": func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
		runs.Add(1)
		return nil, rig.Pause(ctx, c.Idle)
	}}, map[string]configs.Function{"bench": {Trigger: configs.Trigger{StorageQueue: &configs.StorageQueueTrigger{}}, Handler: configs.Handler{Go: "run"}, Timeout: configs.Duration(time.Hour)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopLong()) }()
	if err := c.send(ctx, emulator.ConnectionString(longAddress), "bench", 1); err != nil {
		return err
	}

	// A few queues at rest.
	seen := make(chan time.Time, c.Rounds)
	functions := make(map[string]configs.Function)
	for _, name := range names[:c.Rounds] {
		functions[name] = configs.Function{Trigger: configs.Trigger{StorageQueue: &configs.StorageQueueTrigger{}}, Handler: configs.Handler{Go: "run"}}
	}
	_, stopFew, err := rig.StartDaemon(ctx, emulator.ConnectionString(fewAddress), handlers.Funcs{"run": func(context.Context, *triggers.Message) ([]byte, error) {
		seen <- time.Now()
		return nil, nil
	}}, functions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopFew()) }()

	// Many, in a separate process.
	stopMany, pid, err := idleDaemon(ctx, emulator.ConnectionString(manyAddress), names)
	if err != nil {
		return err
	}
	defer stopMany()

	if err := rig.Pause(ctx, c.Idle/2); err != nil { // to come to rest
		return err
	}
	before, start := few.Requests(), time.Now()
	cpu, _, err := proc.Stat(pid)
	if err != nil {
		return err
	}
	if err := rig.Pause(ctx, c.Idle/2); err != nil {
		return err
	}
	perMinute := float64(few.Requests()-before) / time.Since(start).Minutes() / float64(c.Rounds)
	after, rss, err := proc.Stat(pid)
	if err != nil {
		return err
	}
	share := float64(after-cpu) / float64(time.Since(start))
	var late []time.Duration
	worst := time.Duration(0)
	for _, name := range names[:c.Rounds] {
		sent := time.Now()
		if err := c.send(ctx, emulator.ConnectionString(fewAddress), name, 1); err != nil {
			return err
		}
		late = append(late, (<-seen).Sub(sent))
		worst = max(worst, late[len(late)-1])
	}
	if err := rig.Until(ctx, func() bool { return longDaemon.Status()[0].Done == 1 }); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "what\tfigure\tto reach\t")
	fmt.Fprintf(w, "30 s lease, a function of %v: deliveries\t%d, by %d gets and %d renewals\t1\t\n", c.Idle, runs.Load(), long.Usage()[emulator.Get], long.Usage()[emulator.Update])
	fmt.Fprintf(w, "an idle queue at rest: requests a minute\t%.1f\t8\t\n", perMinute)
	fmt.Fprintf(w, "the first message after %v: until it runs\t%.1f s (worst %.1f)\t10 s\t\n", c.Idle, rig.Median(late).Seconds(), worst.Seconds())
	fmt.Fprintf(w, "50 idle queues, one daemon: processor time\t%.2f %% of a core, %.0f MB\t2 %%\t\n", 100*share, float64(rss)/1e6)
	return w.Flush()
}

// idleDaemon runs the command over queues whose functions are one app's.
func idleDaemon(ctx context.Context, connection string, queues []string) (stop func(), pid int, err error) {
	dir, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return nil, 0, err
	}
	config := "version: 1\nconnections: {source: {connection_string: \"${SOURCE}\"}}\napps: {app: {path: ., processes: 1}}\nfunctions:\n"
	var b strings.Builder
	for i, name := range queues {
		fmt.Fprintf(&b, "  f%d: {trigger: {storage_queue: {queue: %s}}, handler: {python: {app: app, function: f}}}\n", i, name)
	}
	for name, content := range map[string]string{"drover.yaml": config + b.String(), "function_app.py": "def f(body): pass\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, 0, errors.Join(err, os.RemoveAll(dir))
		}
	}
	cmd := exec.CommandContext(ctx, binary, "run", "drover.yaml")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "SOURCE="+connection), os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, 0, errors.Join(err, os.RemoveAll(dir))
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it was asked to
		_ = os.RemoveAll(dir)
	}, cmd.Process.Pid, nil
}
