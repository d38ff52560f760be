package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"

	"github.com/drover-run/drover/bench/rig"
)

type ReloadCommand struct {
	Rounds int           `default:"5" help:"Rounds; each has a time without reloads, and one with them."`
	For    time.Duration `default:"10s" help:"How long each of the two is."`
	Every  time.Duration `default:"250ms" help:"The time between two reloads."`
	Rate   int           `default:"500" help:"Messages a second to each of the ten functions."`
}

// functions is the number of functions; the first one changes with each reload.
const functions = 10

// flow has the measurements of one function.
type flow struct {
	handled atomic.Int64
	last    atomic.Int64 // when, in ns
	gap     atomic.Int64 // the longest time between two messages, in ns
}

func (f *flow) note(now int64) {
	f.handled.Add(1)
	if last := f.last.Swap(now); last != 0 && now-last > f.gap.Load() {
		f.gap.Store(now - last)
	}
}

// Run reloads one function of ten under load, and measures the effect on the other nine: the
// longest time without a message, compared with that without reloads.
func (c *ReloadCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.For < time.Second || c.Every <= 0 || c.Rate < 1 {
		return errors.New("--rounds and --rate must be at least 1, --for 1s, --every more than 0s")
	}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	flows := make(map[string]*flow)
	for i := range functions {
		flows[fmt.Sprint("f", i)] = new(flow)
	}
	file := filepath.Join(dir, "drover.yaml")
	d, stop, err := c.start(ctx, file, flows)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	loading, endLoad := context.WithCancel(ctx)
	var load sync.WaitGroup
	defer load.Wait()
	defer endLoad()
	sent, err := c.load(loading, &load, filepath.Join(dir, ".drover"), flows)
	if err != nil {
		return err
	}
	var quiet, reloaded [2][]float64 // the changed function, the others: the longest gap of each round, in ms
	reloads := 0
	for round := range c.Rounds {
		for _, with := range []bool{false, true} {
			for _, f := range flows {
				f.gap.Store(0)
			}
			end := time.Now().Add(c.For)
			for time.Now().Before(end) && ctx.Err() == nil {
				time.Sleep(c.Every)
				if !with {
					continue
				}
				reloads++
				if err := c.reload(ctx, d, file, reloads); err != nil {
					return err
				}
			}
			gaps := &quiet
			if with {
				gaps = &reloaded
			}
			others := int64(0)
			for name, f := range flows {
				if name != "f0" {
					others = max(others, f.gap.Load())
				}
			}
			gaps[0] = append(gaps[0], float64(flows["f0"].gap.Load())/1e6)
			gaps[1] = append(gaps[1], float64(others)/1e6)
			fmt.Fprintf(os.Stderr, "round %d of %d, reloads: %v: longest gap %.1f ms, of the changed function %.1f ms\n", round+1, c.Rounds, with, float64(others)/1e6, gaps[0][len(gaps[0])-1])
		}
	}
	endLoad()
	load.Wait()
	for deadline := time.Now().Add(rig.StuckAfter); d.InFlight() > 0 || handledBy(flows) < sent.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("the messages do not come to an end")
		}
	}
	var released, failed int64
	for _, s := range d.Status() {
		if s.Name != "f0" {
			released += s.Released
		}
		failed += s.Failed
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "longest time without a message, medians\twithout reloads\twith reloads\t")
	fmt.Fprintf(w, "the nine that do not change\t%.1f ms\t%.1f ms\t\n", rig.Median(quiet[1]), rig.Median(reloaded[1]))
	fmt.Fprintf(w, "the one that does\t%.1f ms\t%.1f ms\t\n", rig.Median(quiet[0]), rig.Median(reloaded[0]))
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("%d reloads; %d messages sent, %d handled; of the nine, released: %d; failed: %d\n", reloads, sent.Load(), handledBy(flows), released, failed)
	return nil
}

func handledBy(flows map[string]*flow) (n int64) {
	for _, f := range flows {
		n += f.handled.Load()
	}
	return n
}

// write writes the configuration: the first function's timeout changes.
func (c *ReloadCommand) write(file string, version int) (*configs.Config, error) {
	text := "log: {level: error}\nfunctions:\n"
	for i := range functions {
		text += fmt.Sprintf("  f%d: {trigger: {nats: {}}, handler: {go: f%d}", i, i)
		if i == 0 {
			text += fmt.Sprintf(", timeout: %ds", 100+version)
		}
		text += "}\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return configs.Load(file, os.LookupEnv)
}

func (c *ReloadCommand) start(ctx context.Context, file string, flows map[string]*flow) (d *daemon.Daemon, stop func() error, err error) {
	cfg, err := c.write(file, 0)
	if err != nil {
		return nil, nil, err
	}
	funcs := make(handlers.Funcs)
	for name, f := range flows {
		funcs[name] = func(context.Context, *triggers.Message) ([]byte, error) {
			f.note(time.Now().UnixNano())
			return nil, nil
		}
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, cancel := context.WithCancel(ctx)
	d = daemon.New(cfg, daemon.WithFuncs(funcs), daemon.WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(running) }()
	stop = func() error { cancel(); return <-ended }
	select {
	case <-ready:
		return d, stop, nil
	case err := <-ended:
		cancel()
		return nil, nil, err
	}
}

func (c *ReloadCommand) reload(ctx context.Context, d *daemon.Daemon, file string, version int) error {
	cfg, err := c.write(file, version)
	if err != nil {
		return err
	}
	changes, err := d.Reload(ctx, cfg)
	if err == nil && (len(changes.Changed) != 1 || len(changes.Kept) != functions-1) {
		err = fmt.Errorf("a reload of one function: %v", changes)
	}
	return err
}

// load sends to all functions at the rate, over its own connection.
func (c *ReloadCommand) load(ctx context.Context, running *sync.WaitGroup, dataDir string, flows map[string]*flow) (sent *atomic.Int64, err error) {
	url, token, err := embedded.ReadClient(filepath.Join(dataDir, "nats-embedded"))
	if err != nil {
		return nil, err
	}
	conn, err := client.Connect(ctx, client.Config{Name: "load", URLs: []string{url}, Token: token, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	sent = new(atomic.Int64)
	running.Go(func() {
		defer func() { _ = conn.Close() }() // all was flushed
		sender := conn.NewSender()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		each := max(c.Rate/200, 1)
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			for range each {
				for name := range flows {
					if sender.Send(context.WithoutCancel(ctx), &triggers.Message{Subject: name, Body: []byte("x")}) == nil {
						sent.Add(1)
					}
				}
			}
			if err := sender.Flush(context.WithoutCancel(ctx)); err != nil {
				fmt.Fprintln(os.Stderr, "sending:", err)
				return
			}
		}
	})
	return sent, nil
}
