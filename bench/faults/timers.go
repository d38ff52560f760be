package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"

	"github.com/drover-run/drover/bench/rig"
)

type TimersCommand struct {
	Store     string        `default:"nats" enum:"nats,queue,directory" help:"Where the timers' states are: nats, queue or directory."`
	Timers    int           `default:"1000" help:"Number of timers; each is due once a minute, spread over its seconds."`
	Instances int           `default:"3" help:"Number of daemons that share them."`
	Every     time.Duration `default:"5s" help:"Time between two kill -9 of a daemon, which is started again; 0s is never."`
	For       time.Duration `default:"5m" help:"How long the runs are counted, in whole minutes."`
}

// onTime is how far from its time a run may start.
const onTime = time.Second

// timerRun is a run of a timer, as its function recorded it.
type timerRun struct {
	timer string
	due   string    // its ID
	began time.Time // the first run
	runs  int
}

// Run runs timers in several daemons, kills one of them again and again, and counts the runs of
// each occurrence.
func (c *TimersCommand) Run(ctx context.Context) (err error) {
	if c.Timers < 1 || c.Instances < 1 || c.For < time.Minute || c.For%time.Minute != 0 {
		return errors.New("--timers and --instances must be at least 1, --for whole minutes")
	}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	connections, keys, closeStore, err := c.openStore(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	for i := range c.Instances {
		own := filepath.Join(dir, fmt.Sprint("data-", i))
		if c.Store == "directory" {
			own = filepath.Join(dir, "data")
		}
		text := fmt.Sprintf("version: 1\ndata_dir: %s\nadmin: {listen: \"off\"}\nlog: {level: error}\n%sfunctions:\n", own, connections)
		for n := range c.Timers {
			text += fmt.Sprintf("  t%d: {trigger: {timer: {schedule: \"%d * * * * *\"%s}}, handler: {go: record}}\n", n, n%60, keys)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return c.measure(ctx, dir)
}

// openStore starts what keeps the states, and returns the connections of a configuration and the
// keys of each timer.
func (c *TimersCommand) openStore(ctx context.Context, dir string) (connections, keys string, done func() error, err error) {
	switch c.Store {
	case "nats":
		at := filepath.Join(dir, "nats")
		server, err := embedded.Start(ctx, embedded.Config{Dir: at, Listen: "127.0.0.1:0", Sync: 2 * time.Minute, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return "", "", nil, err
		}
		url, token, err := embedded.ReadClient(at)
		connections = fmt.Sprintf("connections: {here: {nats: %q, token: %q}}\n", url, token)
		return connections, ", connection: here, group: bench", func() error { return server.Close(context.WithoutCancel(ctx)) }, err
	case "queue":
		e := emulator.New(emulator.Options{})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", nil, err
		}
		served := make(chan error, 1)
		go func() { served <- e.Serve(l) }()
		connections = fmt.Sprintf("connections: {here: {connection_string: %q}}\n", emulator.ConnectionString(l.Addr().String()))
		return connections, ", connection: here, group: bench", func() error { return errors.Join(e.Close(), <-served) }, nil
	}
	return "", "", func() error { return nil }, nil
}

// measure runs the daemons, and prints the counts.
func (c *TimersCommand) measure(ctx context.Context, dir string) (err error) {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	daemons := make([]*exec.Cmd, c.Instances)
	start := func(i int) error {
		daemons[i] = exec.CommandContext(ctx, program, "timers-daemon", filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), filepath.Join(dir, "runs"))
		daemons[i].Stdout, daemons[i].Stderr = os.Stdout, os.Stderr
		return daemons[i].Start()
	}
	defer func() {
		for _, cmd := range daemons {
			if cmd != nil && cmd.Process != nil {
				err = errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait())
			}
		}
	}()
	for i := range daemons {
		if err := start(i); err != nil {
			return err
		}
	}
	// The first occurrence of each timer is after its state was stored; they are counted from the
	// second full minute on.
	from := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
	end := from.Add(c.For)
	if err := rig.Pause(ctx, time.Until(from)); err != nil {
		return err
	}
	kills := 0
	for c.Every > 0 && time.Until(end) > c.Every {
		if err := rig.Pause(ctx, c.Every); err != nil {
			return err
		}
		i := rand.IntN(c.Instances)
		if err := daemons[i].Process.Kill(); err != nil {
			return err
		}
		_ = daemons[i].Wait()
		kills++
		if err := start(i); err != nil {
			return err
		}
	}
	const late = 30 * time.Second // for runs that are repeated
	if err := rig.Pause(ctx, time.Until(end.Add(late))); err != nil {
		return err
	}
	return c.report(filepath.Join(dir, "runs"), from, end, kills)
}

// report prints what became of the occurrences from one time to another.
func (c *TimersCommand) report(file string, from, end time.Time, kills int) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	seen := make(map[string]*timerRun)
	for line := range strings.Lines(string(text)) {
		var r timerRun
		var ns int64
		if n, _ := fmt.Sscan(line, &r.timer, &r.due, &ns); n < 3 {
			return fmt.Errorf("a run was recorded as %q", line)
		}
		key := r.timer + " " + r.due
		if seen[key] == nil {
			r.began = time.Unix(0, ns)
			seen[key] = &r
		}
		seen[key].runs++
	}
	expected, onceInTime, repeated, early, missed := 0, 0, 0, 0, 0
	var latest time.Duration
	for n := range c.Timers {
		for due := from.Add(time.Duration(n%60) * time.Second); due.Before(end); due = due.Add(time.Minute) {
			expected++
			r := seen[fmt.Sprintf("t%d %s", n, due.UTC().Format(time.RFC3339Nano))]
			if r == nil {
				missed++
				continue
			}
			repeated += r.runs - 1
			after := r.began.Sub(due)
			latest = max(latest, after)
			if after < 0 {
				early++
			}
			if r.runs == 1 && after.Abs() <= onTime {
				onceInTime++
			}
		}
	}
	fmt.Printf("%d timers, %d instances, store %s: %d occurrences, %d kills\n", c.Timers, c.Instances, c.Store, expected, kills)
	fmt.Printf("once and within %v: %d, %.4f of them; missed: %d; early: %d; repeated: %d, %.2f a kill; the latest after %v\n",
		onTime, onceInTime, float64(onceInTime)/float64(expected), missed, early, repeated, float64(repeated)/float64(max(kills, 1)), latest.Round(time.Millisecond))
	return nil
}

type TimersDaemonCommand struct {
	Config string `arg:""`
	Record string `arg:""`
}

// Run runs a daemon whose functions record their runs.
func (c *TimersDaemonCommand) Run() error {
	file, err := os.OpenFile(c.Record, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	os.Args = []string{"drover", "run", c.Config}
	cli.Main(daemon.WithFuncs(handlers.Funcs{"record": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		_, err := fmt.Fprintf(file, "%s %s %d\n", m.Subject, m.ID, time.Now().UnixNano())
		return nil, err
	}}))
	return nil
}
