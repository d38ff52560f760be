package pools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/configs"

	"github.com/drover-run/drover/bench/rig"
)

type WaitingCommand struct {
	Messages int           `default:"2000" help:"Messages, each of which blocks."`
	Sleep    time.Duration `default:"5s" help:"How long each blocks its thread."`
	Threads  int           `help:"Threads of each worker; by default drover chooses."`
}

// sleeper is an app that notes the begin and the end of each call, a byte in a file each.
const sleeper = `
import os, time
HERE = os.path.dirname(os.path.abspath(__file__))
BEGUN, ENDED = (os.open(os.path.join(HERE, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT) for name in ("begun", "ended"))
def blocks(body):
    os.write(BEGUN, b"x")
    time.sleep(%f)
    os.write(ENDED, b"x")
`

const (
	// A message in transit to a thread or back is not one that waits, and threads take time to start on a
	// busy machine: a number counts only if it is above zero in this many readings in a row, for a second.
	waitingReadings = 20
	waitingEvery    = 50 * time.Millisecond
)

// Run has a blocking Python function handle a full queue, and counts the messages that a worker has and
// does not run, and those that are leased from the source and do not run.
func (c *WaitingCommand) Run(ctx context.Context) (err error) {
	if c.Messages < 1 || c.Sleep < time.Second {
		return errors.New("--messages must be at least 1, --sleep 1s")
	}
	r, err := rig.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Fill(ctx, c.Messages, 16, nil); err != nil {
		return err
	}
	consumer, err := r.Consumer(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(r.Dir, "sleeper")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "function_app.py"), fmt.Appendf(nil, sleeper, c.Sleep.Seconds()), 0o600); err != nil {
		return err
	}
	began := time.Now()
	d, stop, err := r.Daemon(ctx, consumer.CachedInfo().Name, rig.Setup{Change: func(cfg *configs.Config) {
		f := cfg.Functions["noop"]
		f.Concurrency = 0
		f.Handler = configs.Handler{Python: &configs.PythonHandler{Path: dir, Function: "blocks", Threads: c.Threads}}
		cfg.Functions["noop"] = f
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var inWorkers, leased, most int
	var recentWorkers, recentLeased []int
	for {
		if err := rig.Pause(ctx, waitingEvery); err != nil {
			return err
		}
		ended := noted(dir, "ended")
		running := noted(dir, "begun") - ended
		inFlight := int(d.InFlight())
		info, err := consumer.Info(ctx)
		if err != nil {
			return err
		}
		recentWorkers, inWorkers = lowest(recentWorkers, inFlight-running, inWorkers)
		recentLeased, leased = lowest(recentLeased, info.NumAckPending-running, leased)
		most = max(most, running)
		if ended == c.Messages {
			break
		}
		if time.Since(began) > time.Duration(c.Messages)*c.Sleep+rig.StuckAfter {
			return fmt.Errorf("%d of %d messages ended", ended, c.Messages)
		}
	}
	fmt.Printf("%d messages of a blocking sleep of %v, in %.0f s, at most %d at once: messages that waited inside a worker: %d; leased, and prefetched by the daemon: %d\n",
		c.Messages, c.Sleep, time.Since(began).Seconds(), most, inWorkers, leased)
	return nil
}

// noted returns how many calls have begun, or ended.
func noted(dir, name string) int {
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return 0 // no worker has loaded the app yet
	}
	return int(info.Size())
}

// lowest adds a reading, and returns the larger of most and the lowest of the latest readings.
func lowest(recent []int, reading, most int) (kept []int, now int) {
	recent = append(recent, reading)
	if len(recent) < waitingReadings {
		return recent, most
	}
	recent = recent[len(recent)-waitingReadings:]
	least := recent[0]
	for _, n := range recent {
		least = min(least, n)
	}
	return recent, max(most, least)
}
