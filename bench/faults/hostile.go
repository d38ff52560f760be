package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/bench/rig"
)

type HostileCommand struct {
	Messages int           `default:"10000" help:"Messages of each language."`
	Crash    int           `default:"5" help:"Messages that crash (SIGSEGV)."`
	Memory   int           `default:"5" help:"Messages that exceed the memory."`
	Hang     int           `default:"3" help:"Messages that hang."`
	Block    int           `default:"3" help:"Messages that block the event loop; in sync Python, that hold the GIL."`
	Call     time.Duration `default:"100ms" help:"How long each other call takes."`
	Timeout  time.Duration `default:"2s" help:"The function's timeout."`
	Seed     uint64        `default:"1" help:"Seed of where the hostile messages are."`
	Only     string        `enum:"all,sync,async,node" default:"all" help:"all, or one: sync, async, node."`
	Keep     bool          `help:"Keep the directory with the log of the daemon and the record of the runs."`
}

// hostilePython writes a record of each run that comes to its end.
const hostilePython = `import asyncio, ctypes, os, re, time
runs = os.open(os.environ["BENCH_RUNS"], os.O_WRONLY | os.O_APPEND)
CALL = float(os.environ["BENCH_CALL"])
def hostile(kind):
    if kind == "crash": ctypes.string_at(0)
    if kind == "memory": return len([bytearray(1 << 28) for _ in range(1 << 20)])
    if kind == "block": re.match("(a|aa)+$", "a" * 99 + "b")
def done(n, message): os.write(runs, b"%s %03d\n" % (n.encode(), min(message.attempt, 999)))
def sync(message):
    n, kind = message.text().split()
    if kind != "ok":
        hostile(kind)
        while True:
            try: time.sleep(1000)
            except BaseException: pass
    time.sleep(CALL)
    done(n, message)
async def asynchronous(message):
    n, kind = message.text().split()
    await asyncio.sleep(0)
    if kind == "block": time.sleep(1000)
    if kind != "ok":
        hostile(kind)
        await asyncio.Event().wait()
    await asyncio.sleep(CALL)
    done(n, message)
`

const hostileNode = `const fs = require('node:fs');
const runs = fs.openSync(process.env.BENCH_RUNS, 'a');
const call = 1000 * process.env.BENCH_CALL;
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
exports.node = async (message) => {
  const [n, kind] = message.text().split(' ');
  await sleep(call);
  if (kind === 'crash') process.kill(process.pid, 'SIGSEGV');
  if (kind === 'memory') for (const all = []; ;) all.push(new Array(100_000).fill(all.length));
  if (kind === 'block') for (;;);
  if (kind !== 'ok') await new Promise(() => {});
  fs.writeSync(runs, n + ' ' + String(message.attempt).padStart(3, '0') + '\n');
};
`

// hostileConfig runs 16 messages at once, in two workers.
const hostileConfig = `version: 1
data_dir: data
connections: {local: {nats: embedded}}
apps: {app: {path: ., processes: 2, %s, kill_grace: 1s%s}}
functions:
  bench:
    trigger: {nats: {}}
    timeout: %v
    handler: {%s: {app: app%s, function: %s}}
    retry: {max_attempts: 3, initial: 100ms, max: 1s}
`

// Run sends messages of which some are hostile, and the same without them.
func (c *HostileCommand) Run(ctx context.Context) error {
	if c.Messages < 100 || c.hostile() > c.Messages/10 {
		return errors.New("--messages must be at least 100, and ten times as many as are hostile")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "functions\tmessages\thostile\tdead-lettered\tinnocents charged\tlost\tmsg/s\twithout hostile\tratio\t")
	measure := func(kind string) rig.Part {
		return rig.Part{Name: kind, Run: func(ctx context.Context) error {
			without, err := c.round(ctx, kind, nil)
			if err != nil {
				return fmt.Errorf("%s, without hostile messages: %w", kind, err)
			}
			with, err := c.round(ctx, kind, c.places())
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%.0f\t%.0f\t%.2f\t\n", kind, c.Messages, c.hostile(), with.dead, with.charged, with.lost, with.rate, without.rate, with.rate/without.rate)
			return nil
		}}
	}
	err := rig.RunParts(ctx, c.Only, measure("sync"), measure("async"), measure("node"))
	return errors.Join(err, table.Flush())
}

func (c *HostileCommand) hostile() int { return c.Crash + c.Memory + c.Hang + c.Block }

// places are the numbers of the hostile messages, and what they do.
func (c *HostileCommand) places() map[int]string {
	out := make(map[int]string)
	random := rand.New(rand.NewPCG(c.Seed, 1))
	for kind, n := range map[string]int{"crash": c.Crash, "memory": c.Memory, "hang": c.Hang, "block": c.Block} {
		for range n {
			at := random.IntN(c.Messages)
			for out[at] != "" {
				at = random.IntN(c.Messages)
			}
			out[at] = kind
		}
	}
	return out
}

// hostileResult is what became of the messages.
type hostileResult struct {
	dead, charged, lost int
	rate                float64 // of the innocents
}

func (c *HostileCommand) round(ctx context.Context, kind string, hostile map[int]string) (s hostileResult, err error) {
	r, err := c.open(ctx, kind)
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil || c.Keep {
			fmt.Fprintln(os.Stderr, kind+": the log and the runs are in", r.dir)
			return
		}
		err = os.RemoveAll(r.dir)
	}()
	var lines bytes.Buffer
	for i := range c.Messages {
		what := hostile[i]
		if what == "" {
			what = "ok"
		}
		fmt.Fprintf(&lines, "%07d %s\n", i, what)
	}
	if err := r.send(ctx, &lines); err != nil {
		return s, err
	}
	if err := r.start(ctx); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	innocents := c.Messages - len(hostile)
	var began, ended time.Time
	var runs map[int]int
	var dead []int
	for last, moved := -1, time.Now(); ; {
		if err := rig.Pause(ctx, 50*time.Millisecond); err != nil {
			return s, err
		}
		if runs, err = r.read(); err != nil {
			return s, err
		}
		if began.IsZero() && len(runs) > 0 {
			began = time.Now()
		}
		if len(runs) != last {
			last, moved = len(runs), time.Now()
		}
		if len(runs) == innocents && ended.IsZero() {
			ended = time.Now()
		}
		if stuck := time.Since(moved) > time.Minute; stuck || !ended.IsZero() {
			if dead, err = r.dead(ctx); err != nil {
				return s, err
			}
			if len(dead) >= len(hostile) || stuck {
				break
			}
		}
	}
	s.dead = len(dead)
	for _, n := range dead {
		if hostile[n] == "" {
			s.charged++
		}
		delete(runs, n)
	}
	for n, attempt := range runs {
		if hostile[n] == "" && attempt > 1 {
			s.charged++
			fmt.Fprintf(os.Stderr, "%s: message %d was done in attempt %d\n", kind, n, attempt)
		}
	}
	s.lost = c.Messages - len(runs) - len(dead)
	if !ended.IsZero() {
		s.rate = float64(innocents) / ended.Sub(began).Seconds()
	}
	return s, nil
}

// drover is a daemon in its own directory, whose function writes a record of each
// run.
type drover struct {
	dir, binary string
	env         []string
	log         *os.File
	cmd         *exec.Cmd
}

func (c *HostileCommand) open(ctx context.Context, kind string) (*drover, error) {
	room, limits, handler, module, function := "threads: 8", ", limits: {address_space: 2GiB}", "python", "", kind
	switch kind {
	case "async":
		room, function = "threads: 1, coroutines: 8", "asynchronous"
	case "node":
		room, limits, handler, module = "coroutines: 8", ", environment: {set: {NODE_OPTIONS: --max-old-space-size=128}}", "node", ", module: index"
	}
	config := fmt.Sprintf(hostileConfig, room, limits, c.Timeout, handler, module, function)
	return openDrover(ctx, map[string]string{"drover.yaml": config, "function_app.py": hostilePython, "index.js": hostileNode}, "BENCH_CALL="+fmt.Sprint(c.Call.Seconds()))
}

// openDrover writes the files of a daemon that is not started yet.
func openDrover(ctx context.Context, files map[string]string, env ...string) (*drover, error) {
	dir, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return nil, err
	}
	r := &drover{dir: dir, binary: binary, env: append(append(os.Environ(), stopRuns+"="+filepath.Join(dir, "runs")), env...)}
	files["runs"] = ""
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	r.log, err = os.Create(filepath.Join(dir, "log"))
	return r, err
}

func (r *drover) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	return cmd
}

// send sends one message for each line.
func (r *drover) send(ctx context.Context, lines io.Reader) error {
	cmd := r.command(ctx, "send", "bench", "--lines", "-")
	cmd.Stdin = lines
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sending: %w\n%s", err, out)
	}
	return nil
}

func (r *drover) start(ctx context.Context) error {
	r.cmd = r.command(ctx, "run", "drover.yaml")
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	return r.cmd.Start()
}

func (r *drover) stop() error {
	return errors.Join(r.cmd.Process.Signal(syscall.SIGTERM), r.cmd.Wait(), r.log.Close())
}

// read is the attempt in which each message was done last.
func (r *drover) read() (map[int]int, error) {
	text, err := os.ReadFile(filepath.Join(r.dir, "runs"))
	out := make(map[int]int)
	for line := range strings.Lines(string(text)) {
		number, attempt, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("the record %q: %w", line, err)
		}
		out[n], _ = strconv.Atoi(attempt) // digits
	}
	return out, err
}

// dead are the numbers of the messages that were dead-lettered.
func (r *drover) dead(ctx context.Context) (out []int, err error) {
	cmd := r.command(ctx, "dead", "list", "bench", "--limit", "0", "--json")
	var failure bytes.Buffer
	cmd.Stderr = &failure
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the dead letters: %w\n%s", err, failure.Bytes())
	}
	for line := range strings.Lines(string(text)) {
		var letter struct {
			Body string `json:"body"`
		}
		if err := json.Unmarshal([]byte(line), &letter); err != nil {
			return nil, fmt.Errorf("the dead letter %s: %w", line, err)
		}
		number, _, _ := strings.Cut(letter.Body, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("the dead letter %s: %w", line, err)
		}
		out = append(out, n)
	}
	return out, nil
}
