package pools

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	_ "embed"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/scaler/sim"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"

	"github.com/drover-run/drover/bench/rig"
)

//go:embed scale_app.py
var scaleApp []byte

type ScaleCommand struct {
	Rounds   int    `default:"5" help:"Rounds of workers and step."`
	ScaleIns int    `default:"100" help:"How often instances are drained."`
	Seed     uint64 `default:"1" help:"Of when, and how many."`
	Only     string `enum:"all,workers,step,scalein,simulate" default:"all" help:"all, or one part: workers, step, scalein, simulate."`
}

// Run measures the scaler.
func (c *ScaleCommand) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.ScaleIns < 1 {
		return errors.New("--rounds and --scale-ins must be at least 1")
	}
	return rig.RunParts(ctx, c.Only, rig.Part{Name: "workers", Run: c.workers}, rig.Part{Name: "step", Run: c.step}, rig.Part{Name: "scalein", Run: c.scaleIn}, rig.Part{Name: "simulate", Run: c.simulate})
}

const (
	burnTime = 20 * time.Millisecond
	burns    = 10_000
	// burnHead is the time for workers to start; then the rate is measured over burnFor.
	burnHead = 2 * time.Second
	burnFor  = 20 * time.Second
)

// workers sends a backlog of 10,000 messages of 20 ms of CPU time each to an idle daemon with one
// worker. It measures the rate from two seconds later on, as a fraction of the ideal, and of the
// rate of the same number of Python processes alone.
func (c *ScaleCommand) workers(ctx context.Context) error {
	cores := runtime.GOMAXPROCS(0)
	var own, bare []float64
	for round := range c.Rounds {
		alone, err := bareBurns(ctx, cores)
		if err != nil {
			return err
		}
		rate, workers, err := burnRate(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: %d processes alone %.1f/s, drover %.1f/s with %d workers\n", round+1, c.Rounds, cores, alone, rate, workers)
		own, bare = append(own, rate), append(bare, alone)
	}
	ideal := float64(cores) / burnTime.Seconds()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmessages/s\tratio\tto reach\t")
	fmt.Fprintf(w, "ideal, %d cores, 20 ms each\t%.1f\t1\t\t\n", cores, ideal)
	fmt.Fprintf(w, "%d Python processes alone\t%.1f\t%.3f ÷ ideal\t\t\n", cores, rig.Median(bare), rig.Median(bare)/ideal)
	fmt.Fprintf(w, "drover, from 2 s after the arrival\t%.1f\t%.3f ÷ ideal\t0.95\t\n", rig.Median(own), rig.Median(own)/ideal)
	return w.Flush()
}

// bareBurns returns the rate of Python processes without drover, in messages per second.
func bareBurns(ctx context.Context, processes int) (float64, error) {
	const program = `
import sys, time
sys.path.insert(0, sys.argv[1])
from scale_app import burn
count, end = 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    burn(None)
    count += 1
print(count)
`
	dir, err := scaleDir("")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is the system's to clean, too
	const length = 5 * time.Second
	outs := make([]chan error, processes)
	var total atomic.Int64
	for i := range outs {
		outs[i] = make(chan error, 1)
		go func() {
			out, err := exec.CommandContext(ctx, "python3", "-c", program, dir, fmt.Sprint(length.Seconds())).Output()
			if err == nil {
				var n int64
				n, err = strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
				total.Add(n)
			}
			outs[i] <- err
		}()
	}
	for _, ended := range outs {
		err = errors.Join(err, <-ended)
	}
	return float64(total.Load()) / length.Seconds(), err
}

// scaleDir creates a directory with the app, and with a configuration if given.
func scaleDir(config string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return "", err
	}
	err = os.WriteFile(filepath.Join(dir, "scale_app.py"), scaleApp, 0o600)
	if config != "" {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "drover.yaml"), []byte(config), 0o600))
	}
	return dir, err
}

func loadConfig(dir string) (*configs.Config, error) {
	return configs.Load(filepath.Join(dir, "drover.yaml"), os.LookupEnv)
}

var warnings = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

// burnRate runs one round of workers.
func burnRate(ctx context.Context) (rate float64, workers int, err error) {
	dir, err := scaleDir("functions: {burn: {trigger: {nats: {}}, handler: {python: {path: scale_app.py}}}}\n")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, err := loadConfig(dir)
	if err != nil {
		return 0, 0, err
	}
	cfg.Drain = configs.Duration(100 * time.Millisecond) // the remaining messages are not needed
	running, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := daemon.New(cfg, daemon.WithLogger(warnings), daemon.WithEnv(os.LookupEnv, os.Environ), daemon.WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(running) }()
	defer func() {
		cancel()
		if stopped := <-ended; !errors.Is(stopped, daemon.ErrCutShort) {
			err = errors.Join(err, stopped)
		}
	}()
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		return 0, 0, err
	}
	conn, err := dialEmbedded(ctx, cfg.DataDir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := rig.Pause(ctx, 2*time.Second); err != nil { // at rest
		return 0, 0, err
	}
	began := time.Now()
	sender := conn.NewSender()
	for range burns {
		if err := sender.Send(ctx, &triggers.Message{Subject: "burn", Body: []byte("x")}); err != nil {
			return 0, 0, err
		}
	}
	if err := sender.Flush(ctx); err != nil {
		return 0, 0, err
	}
	if err := rig.Pause(ctx, burnHead-time.Since(began)); err != nil {
		return 0, 0, err
	}
	from, at := d.Status()[0].Done, time.Now()
	if err := rig.Pause(ctx, burnFor); err != nil {
		return 0, 0, err
	}
	s := d.Status()[0]
	return float64(s.Done-from) / time.Since(at).Seconds(), s.Workers, nil
}

// dialEmbedded reaches a daemon's embedded server from beside it.
func dialEmbedded(ctx context.Context, dataDir string) (*client.Connection, error) {
	url, token, err := embedded.ReadClient(filepath.Join(dataDir, "nats-embedded"))
	if err != nil {
		return nil, err
	}
	return client.Connect(ctx, client.Config{Name: "bench", URLs: []string{url}, Token: token, Log: warnings})
}

// A line of the app's log.
type told struct {
	instance int
	at       time.Time
	attempt  int
	body     string
}

func readTold(dir string) (all []told, err error) {
	file, err := os.Open(filepath.Join(dir, "log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var t told
		var at float64
		if _, err := fmt.Sscan(lines.Text(), &t.instance, &at, &t.attempt, &t.body); err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		t.at = time.UnixMicro(int64(at * 1e6))
		all = append(all, t)
	}
	return all, lines.Err()
}

// step measures the time from a step of the backlog, with one idle instance, until a second one
// receives.
func (c *ScaleCommand) step(ctx context.Context) error {
	var gaps []time.Duration
	worst := time.Duration(0)
	for round := range c.Rounds {
		gap, err := stepOnce(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: a second instance received %v after the step\n", round+1, c.Rounds, gap.Round(time.Millisecond))
		gaps, worst = append(gaps, gap), max(worst, gap)
	}
	fmt.Printf("from a step of the backlog until a second instance receives: %v, worst %v (to reach: 2s)\n", rig.Median(gaps).Round(time.Millisecond), worst.Round(time.Millisecond))
	return nil
}

func stepOnce(ctx context.Context) (gap time.Duration, err error) {
	home, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := scaleDir("log: {level: warn}\nscale: {instances: {min: 1, max: 2}}\nfunctions: {tell: {trigger: {nats: {}}, handler: {python: {path: scale_app.py, processes: 1}}}}\n")
	defer func() { err = errors.Join(err, os.RemoveAll(home), os.RemoveAll(dir)) }()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, binary, "run")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
		_, _ = cmd.Process.Wait() // how it ends is not measured here
	}()
	limited, cancel := context.WithTimeout(ctx, rig.StuckAfter)
	defer cancel()
	var conn *client.Connection
	if err := rig.Until(limited, func() bool {
		conn, err = dialEmbedded(limited, filepath.Join(dir, ".drover"))
		return err == nil
	}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	send := func(n int) error {
		sender := conn.NewSender()
		for range n {
			if err := sender.Send(limited, &triggers.Message{Subject: "tell", Body: []byte("x")}); err != nil {
				return err
			}
		}
		return sender.Flush(limited)
	}
	// The stream comes with the first instance. It works on this, and is at rest.
	if err := rig.Until(limited, func() bool { return send(1) == nil }); err != nil {
		return 0, err
	}
	if err := rig.Pause(limited, 7*time.Second); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := send(2000); err != nil {
		return 0, err
	}
	err = rig.Until(limited, func() bool {
		all, readErr := readTold(dir)
		if readErr != nil || len(all) == 0 {
			return false // a line may be half written
		}
		for _, t := range all {
			if t.instance != all[0].instance {
				gap = t.at.Sub(began)
				return true
			}
		}
		return false
	})
	return gap, err
}

// scaleIn drains instances at random, under load.
func (c *ScaleCommand) scaleIn(ctx context.Context) (err error) {
	home, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return err
	}
	dir, err := scaleDir("log: {level: warn}\ndrain: 30s\nscale: {instances: {min: 1, max: 4}}\nfunctions: {vary: {trigger: {nats: {}}, handler: {python: {path: scale_app.py, processes: 1, threads: 4}}}}\n")
	defer func() { err = errors.Join(err, os.RemoveAll(home), os.RemoveAll(dir)) }()
	if err != nil {
		return err
	}
	cfg, err := loadConfig(dir)
	if err != nil {
		return err
	}
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: filepath.Join(cfg.DataDir, "nats-embedded"), Listen: "127.0.0.1:0", Sync: 2 * time.Minute, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close(context.Background())) }()
	conn, err := client.ConnectInProcess(ctx, server, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	var interrupted atomic.Int64
	p := local.New(local.Config{
		Command: local.Command{Path: binary, Args: []string{"instance"}, Env: os.Environ(), Stdout: io.Discard, Stderr: os.Stderr},
		Hello:   func(id int) (json.RawMessage, error) { return daemon.Greeting(cfg, id) },
		Gone: func(_ int, how error) {
			if how != nil { // it was cut short, or failed
				interrupted.Add(1)
			}
		},
		StartLimit: time.Minute, DrainLimit: time.Minute, Log: warnings,
	})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := p.Set(ctx, 2); err != nil {
		return err
	}
	if err := p.WaitReady(ctx); err != nil {
		return err
	}

	// More comes than four instances of four threads take, so that slots are full.
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	sent := make(chan int, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		sender := conn.NewSender()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-feeding.Done():
				return
			}
			for range 6 {
				n++
				if sender.Send(ctx, &triggers.Message{Subject: "vary", Body: strconv.AppendInt(nil, int64(n), 10)}) != nil {
					n--
				}
			}
			if sender.Flush(ctx) != nil {
				return
			}
		}
	}()
	random := rand.New(rand.NewPCG(c.Seed, 1))
	drained, now := 0, 2
	for drained < c.ScaleIns {
		if err := rig.Pause(ctx, time.Duration(300+random.IntN(900))*time.Millisecond); err != nil {
			return err
		}
		next := 1 + random.IntN(4)
		drained += max(now-next, 0)
		now = next
		if err := p.Set(ctx, now); err != nil {
			return err
		}
	}
	stopFeeding()
	total := <-sent
	if err := p.Set(ctx, 4); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, rig.StuckAfter)
	defer cancel()
	counts := func() (distinct, charged, twice int) {
		all, err := readTold(dir)
		if err != nil {
			return 0, 0, 0
		}
		seen := make(map[string]bool)
		for _, t := range all {
			if seen[t.body] {
				twice++
			}
			seen[t.body] = true
			if t.attempt > 1 {
				charged++
			}
		}
		return len(seen), charged, twice
	}
	stuck := rig.Until(limited, func() bool { n, _, _ := counts(); return n >= total })
	distinct, charged, twice := counts()
	fmt.Printf("%d instances drained at random under load, %d messages: %d instances with messages cut short, %d attempts charged, %d lost, %d done twice (to reach: 0, 0, 0)\n",
		drained, total, interrupted.Load(), charged, total-distinct, twice)
	return stuck
}

// simulate runs a day with 10,000 instances and more than 10^9 messages.
func (c *ScaleCommand) simulate(context.Context) error {
	const instances, slots = 10_000, 32
	model := sim.Model{
		Service: time.Second, Spread: 1, Slots: slots, StartUp: 5 * time.Second, Grace: 30 * time.Second,
		MaxAge: 30 * time.Second, Min: 1, Max: instances,
	}
	trace := sim.Trace{Name: "large day", Each: time.Second, Counts: make([]int64, 86_400), Model: model}
	for i := range trace.Counts {
		trace.Counts[i] = int64(model.Capacity() * instances * 0.94 * (0.6 - 0.4*math.Cos(2*math.Pi*float64(i)/86_400)))
	}
	policy := scaler.Policy{
		Min: 1, Max: instances, MaxAge: model.MaxAge, Utilisation: 0.95, Activation: 1, Idle: 5 * time.Minute,
		MinGain: 0.1, Forecast: true, Interval: 5 * time.Second,
	}
	for _, p := range append([]sim.Policy{sim.Drover(policy)}, sim.Peers()...) {
		var times []time.Duration
		var r sim.Result
		for range c.Rounds {
			began := time.Now()
			r = sim.Run(trace, model, p, c.Seed)
			times = append(times, time.Since(began))
		}
		most := 0.0
		for _, n := range r.Instances {
			most = max(most, n)
		}
		fmt.Printf("a day of %d messages with up to %.0f instances, %s: simulated in %v (to reach: 10s)\n", r.Messages, most, p.Name, rig.Median(times).Round(time.Millisecond))
	}
	return nil
}
