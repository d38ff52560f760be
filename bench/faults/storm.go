package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/bench/rig"
)

type StormCommand struct {
	Messages int    `default:"100000" help:"Messages for each source."`
	Kills    int    `default:"40" help:"Kills for each source: the daemon, a worker, the reaper and the broker in equal parts, in a seeded order."`
	Seed     uint64 `default:"1" help:"Seed of the order and of the moments."`
	Keep     bool   `help:"Keep the directory with the log of the daemon and the record of the runs."`
	Only     string `enum:"all,nats,embedded,servicebus,storagequeue" default:"all" help:"all, or one source: nats, embedded, servicebus, storagequeue."`
	Broker   string `hidden:"" help:"Be a NATS server with its store in this directory."`
	Listen   string `hidden:"" help:"The address of that server."`
}

const (
	// Every run of the function writes a record when it starts, and one when it ends.
	stormRecord = len("0000000 001 start\n")
	// A message that was in flight at a kill is redelivered after this time.
	stormLease = 5 * time.Second
	// A broker without a separate process refuses connections for this time.
	stormOutage = time.Second
	// A storm must make progress within this time.
	stormStuck = 90 * time.Second
	// stormMark is a variable in the environment of every process of a storm.
	stormMark = "BENCH_STORM"
)

// In every 50 messages one fails its first attempt, so that attempts are counted.
const stormApp = `import os, time
runs = os.open(os.environ["BENCH_RUNS"], os.O_WRONLY | os.O_APPEND)
def bench(message):
    n = int(message.body)
    def record(what):
        os.write(runs, b"%07d %03d %s\n" % (n, min(message.attempt, 999), what))
    record(b"start")
    time.sleep(0.004)
    if n % 50 == 7 and message.attempt == 1:
        record(b"fails")
        raise RuntimeError("fails once")
    record(b"done ")
`

// Run kills parts of a working drover and counts what became of the messages.
func (c *StormCommand) Run(ctx context.Context) error {
	if c.Broker != "" {
		return stormBroker(ctx, c.Broker, c.Listen)
	}
	if c.Messages < 100 || c.Messages > 9_999_999 || c.Kills < 0 {
		return errors.New("--messages must be 100 to 9999999, --kills at least 0")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "source\tmessages\tkills\tlost\tdead-lettered\tcharged by a kill\tran more than needed\torphans\ttook\t")
	source := func(kind string) rig.Part {
		return rig.Part{Name: kind, Run: func(ctx context.Context) error {
			s, err := c.storm(ctx, kind)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f s\t\n", kind, c.Messages, s.kills, s.lost, s.dead, s.charged, s.again, s.orphans, s.took.Seconds())
			return nil
		}}
	}
	err := rig.RunParts(ctx, c.Only, source("nats"), source("embedded"), source("servicebus"), source("storagequeue"))
	return errors.Join(err, table.Flush())
}

// storm is one source's storm while it runs.
type storm struct {
	dir, binary string
	env         []string
	log         *os.File
	trigger     string // the trigger in the configuration
	connection  string // the connection in the configuration
	breakBroker func(context.Context) error
	stopBroker  func() error

	mu       sync.Mutex
	daemon   *os.Process
	stopping bool
}

// stormed is what became of the messages of one source.
type stormed struct {
	kills, lost, dead, charged, again, orphans int
	took                                       time.Duration
}

func (c *StormCommand) storm(ctx context.Context, kind string) (s stormed, err error) {
	dir, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return s, err
	}
	mark := stormMark + "=" + strconv.FormatInt(time.Now().UnixNano(), 36)
	r := &storm{dir: dir, binary: binary, env: append(os.Environ(), mark, stopRuns+"="+filepath.Join(dir, "runs"))}
	defer func() {
		if err != nil || c.Keep {
			fmt.Fprintln(os.Stderr, kind+": the log and the runs are in", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	if r.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.log.Close()) }()
	if err := r.open(ctx, kind); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.stopBroker()) }()
	kinds := []string{"daemon", "worker", "reaper", "broker"}
	if kind == "embedded" {
		kinds = kinds[:3] // the broker is the daemon
	}
	random := rand.New(rand.NewPCG(c.Seed, 0))
	var kills []string
	for i := range c.Kills {
		kills = append(kills, kinds[i%len(kinds)])
	}
	random.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })

	began := time.Now()
	supervised := make(chan error, 1)
	go func() { supervised <- r.supervise(ctx) }()
	if err = r.fill(ctx, c.Messages); err == nil {
		err = r.run(ctx, c.Messages, kills, random)
	}
	s.took = time.Since(began)
	err = errors.Join(err, r.stop(), <-supervised)
	if err != nil {
		return s, err
	}
	s.kills = len(kills)
	if s.orphans, err = orphans(ctx, mark); err != nil {
		return s, err
	}
	if s.dead, err = r.dead(ctx); err != nil {
		return s, err
	}
	return s, r.judge(c.Messages, &s)
}

// fill sends the messages when the daemon is ready: the daemon creates missing streams at the broker.
func (r *storm) fill(ctx context.Context, n int) error {
	waiting, cancel := context.WithTimeout(ctx, stormStuck)
	defer cancel()
	for r.command(waiting, "health").Run() != nil {
		if err := rig.Pause(waiting, 100*time.Millisecond); err != nil {
			return fmt.Errorf("the daemon does not become ready: %w", err)
		}
	}
	var lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, "%07d\n", i)
	}
	cmd := r.command(ctx, "send", "bench", "--lines", "-")
	cmd.Stdin = &lines
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sending: %w\n%s", err, out)
	}
	return nil
}

// command is a command of drover beside the daemon.
func (r *storm) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Dir = r.dir // with drover.yaml
	return cmd
}

// supervise runs the daemon, and starts it again whenever it ends, until stop.
func (r *storm) supervise(ctx context.Context) error {
	for {
		cmd := exec.CommandContext(ctx, r.binary, "run", "drover.yaml")
		cmd.Dir, cmd.Env, cmd.Stderr, cmd.Stdout = r.dir, r.env, r.log, r.log
		r.mu.Lock()
		if r.stopping {
			r.mu.Unlock()
			return nil
		}
		err := cmd.Start()
		r.daemon = cmd.Process
		r.mu.Unlock()
		if err != nil {
			return err
		}
		err = cmd.Wait()
		r.mu.Lock()
		r.daemon = nil
		stopping := r.stopping
		r.mu.Unlock()
		switch {
		case stopping:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err := rig.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *storm) stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	if r.daemon == nil {
		return nil
	}
	return r.daemon.Signal(syscall.SIGTERM)
}

// progress is about how many messages are done.
func (r *storm) progress() int {
	info, err := os.Stat(filepath.Join(r.dir, "runs"))
	if err != nil {
		return 0
	}
	return int(info.Size()) / stormRecord / 2
}

// run spreads the kills over the work, and returns when every message is done, or when
// nothing is done any more.
func (r *storm) run(ctx context.Context, n int, kills []string, random *rand.Rand) error {
	moved, last := time.Now(), -1
	for k := 0; ; {
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		now := r.progress()
		if now != last {
			moved, last = time.Now(), now
		}
		if k < len(kills) && now >= int((float64(k)+random.Float64())/float64(len(kills)+1)*float64(n)) {
			done, err := r.kill(ctx, kills[k], random)
			if err != nil {
				return fmt.Errorf("killing the %s: %w", kills[k], err)
			}
			if done {
				k++
			}
			moved = time.Now()
		}
		if now >= n*95/100 || time.Since(moved) > 2*stormLease {
			runs, err := r.read()
			if err != nil {
				return err
			}
			if len(runs.done) == n && k == len(kills) {
				return nil
			}
		}
		if time.Since(moved) > stormStuck {
			return nil // the missing messages are lost
		}
	}
}

// kill kills one part, and reports whether there was one to kill.
func (r *storm) kill(ctx context.Context, part string, random *rand.Rand) (bool, error) {
	if part == "broker" {
		return true, r.breakBroker(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.daemon == nil {
		return false, nil
	}
	if part == "daemon" {
		return true, r.daemon.Kill()
	}
	reapers, err := children(r.daemon.Pid)
	if err != nil || len(reapers) == 0 {
		return false, err
	}
	victims := reapers
	if part == "worker" {
		if victims, err = children(reapers[0]); err != nil || len(victims) == 0 {
			return false, err
		}
	}
	err = syscall.Kill(victims[random.IntN(len(victims))], syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	return err == nil, err
}

// children are the processes whose parent is pid (Linux).
func children(pid int) (out []int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// stormRuns is what the function recorded.
type stormRuns struct {
	done    map[string]bool
	started int
	charged int // attempts of which no failure was recorded
	failed  int
}

func (r *storm) read() (runs stormRuns, err error) {
	text, err := os.ReadFile(filepath.Join(r.dir, "runs"))
	if err != nil {
		return runs, err
	}
	runs.done = make(map[string]bool)
	fails := make(map[string]int)
	charged := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(line) != stormRecord || len(fields) != 3 {
			return runs, fmt.Errorf("a record of the runs is damaged: %q", line)
		}
		id := fields[0]
		attempt, err := strconv.Atoi(fields[1])
		if err != nil {
			return runs, err
		}
		switch fields[2] {
		case "start":
			runs.started++
			if attempt-1 > fails[id] && !charged[id] {
				charged[id] = true
				runs.charged++
			}
		case "fails":
			fails[id]++
			runs.failed++
		case "done":
			runs.done[id] = true
		}
	}
	return runs, nil
}

func (r *storm) judge(n int, s *stormed) error {
	runs, err := r.read()
	if err != nil {
		return err
	}
	s.lost = n - len(runs.done) - s.dead
	s.charged = runs.charged
	s.again = runs.started - len(runs.done) - runs.failed
	return nil
}

// dead counts the dead letters: there must be none.
func (r *storm) dead(ctx context.Context) (int, error) {
	cmd := r.command(ctx, "dead", "list", "bench", "--limit", "0", "--json")
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("listing the dead letters: %w\n%s", err, failure.Bytes())
	}
	return bytes.Count(out, []byte("\n")), nil
}

// orphans counts the processes of a storm that have outlived its daemon (Linux).
func orphans(ctx context.Context, mark string) (n int, err error) {
	for range 50 {
		n = 0
		files, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				continue // it has ended
			}
			text, _ := io.ReadAll(f) // it may end meanwhile
			_ = f.Close()
			if slices.Contains(strings.Split(string(text), "\x00"), mark) {
				n++
			}
		}
		if n == 0 {
			return 0, nil
		}
		if err := rig.Pause(ctx, 100*time.Millisecond); err != nil {
			return n, err
		}
	}
	return n, nil
}
