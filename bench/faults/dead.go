package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"

	"github.com/drover-run/drover/bench/rig"
)

type DeadCommand struct {
	Messages int  `default:"100000" help:"Dead letters."`
	Kill     bool `help:"Kill the replay half way (kill -9), instead of stopping it (SIGINT)."`
}

const deadConfig = `version: 1
log: {level: error}
functions:
  numbers:
    trigger: {nats: {}}
    handler: {go: numbers}
`

// Run has messages die, replays them with the built command, which is cut half
// way and started again, and counts how often each runs after that.
func (c *DeadCommand) Run(ctx context.Context) (err error) {
	if c.Messages < 100 {
		return errors.New("--messages must be at least 100")
	}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g := &graves{n: c.Messages, binary: filepath.Join(dir, "drover"), file: filepath.Join(dir, "drover.yaml"), nats: filepath.Join(dir, ".drover", "nats-embedded")}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", g.binary, "github.com/drover-run/drover").CombinedOutput(); err != nil {
		return fmt.Errorf("building drover: %w\n%s", err, out)
	}
	if err := os.WriteFile(g.file, []byte(deadConfig), 0o600); err != nil {
		return err
	}
	if err := g.command(ctx, "send", "numbers", "--count", strconv.Itoa(c.Messages)).Run(); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if err := g.die(ctx); err != nil {
		return fmt.Errorf("having them die: %w", err)
	}
	left, first, err := g.cut(ctx, c.Kill)
	if err != nil {
		return fmt.Errorf("the first replay: %w", err)
	}
	began := time.Now()
	again := g.command(ctx, "dead", "replay", "numbers", "--all")
	if err := again.Run(); err != nil {
		return fmt.Errorf("the second replay: %w", err)
	}
	second := time.Since(began)
	twice, lost, stay, err := g.count(ctx)
	if err != nil {
		return fmt.Errorf("counting: %w", err)
	}
	how := "stopped"
	if c.Kill {
		how = "killed"
	}
	fmt.Printf("%d dead letters; the replay was %s after %v with %d left, and the next one took %v, %.0f/s\n",
		c.Messages, how, first.Round(time.Millisecond), left, second.Round(time.Millisecond), float64(left)/second.Seconds())
	fmt.Printf("ran twice: %d, not at all: %d, dead letters left: %d\n", twice, lost, stay)
	if twice+lost > 0 || stay > 0 {
		return errors.New("it should be none")
	}
	return nil
}

// graves are the dead letters of an embedded server.
type graves struct {
	n                  int
	binary, file, nats string
}

func (g *graves) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, g.binary, append(args, "-c", g.file)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd
}

// die runs a daemon whose function rejects all.
func (g *graves) die(ctx context.Context) error {
	return g.run(ctx, func(context.Context, *triggers.Message) ([]byte, error) {
		return nil, handlers.Reject(errors.New("not today"))
	}, func(js jetstream.JetStream) (bool, error) {
		s, err := js.Stream(ctx, "numbers-DEAD")
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return false, nil
		}
		return err == nil && s.CachedInfo().State.Msgs == uint64(g.n), err
	})
}

// cut starts a replay, and ends it half way.
func (g *graves) cut(ctx context.Context, kill bool) (left uint64, took time.Duration, err error) {
	cmd := g.command(ctx, "dead", "replay", "numbers", "--all")
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = g.watch(ctx, func(js jetstream.JetStream) (bool, error) {
		s, err := js.Stream(ctx, "numbers-DEAD")
		if err != nil {
			return false, err
		}
		left = s.CachedInfo().State.Msgs
		return left <= uint64(g.n/2), nil
	})
	signal := os.Signal(syscall.SIGINT)
	if kill {
		signal = syscall.SIGKILL
	}
	err = errors.Join(err, cmd.Process.Signal(signal))
	end := <-ended
	if end == nil {
		return 0, 0, errors.New("it was through before it was cut: take more --messages")
	}
	return left, time.Since(began), err
}

// count runs a daemon whose function counts how often each message comes.
func (g *graves) count(ctx context.Context) (twice, lost int, left uint64, err error) {
	var mu sync.Mutex
	ran := make(map[string]int)
	err = g.run(ctx, func(_ context.Context, m *triggers.Message) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		ran[string(m.Body)]++
		return nil, nil
	}, func(js jetstream.JetStream) (bool, error) {
		s, err := js.Stream(ctx, "numbers")
		if err != nil {
			return false, err
		}
		dead, err := js.Stream(ctx, "numbers-DEAD")
		if err != nil {
			return false, err
		}
		left = dead.CachedInfo().State.Msgs
		return s.CachedInfo().State.Msgs == 0, nil
	})
	for i := range g.n {
		switch times := ran[strconv.Itoa(i+1)]; {
		case times > 1:
			twice++
		case times == 0:
			lost++
		}
	}
	return twice, lost, left, err
}

// run runs a daemon with a function until something is so.
func (g *graves) run(ctx context.Context, f handlers.Func, is func(jetstream.JetStream) (bool, error)) error {
	cfg, err := configs.Load(g.file, os.LookupEnv)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	d := daemon.New(cfg, daemon.WithLogger(slog.New(slog.DiscardHandler)), daemon.WithFuncs(handlers.Funcs{"numbers": f}))
	go func() { ended <- d.Run(running) }()
	err = g.watch(ctx, is)
	stop()
	return errors.Join(err, <-ended)
}

// watch asks the server that runs over the store, until something is so.
func (g *graves) watch(ctx context.Context, is func(jetstream.JetStream) (bool, error)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, rig.StuckAfter)
	defer cancel()
	var conn *client.Connection
	var js jetstream.JetStream
	for {
		if conn == nil {
			if conn, js, err = g.connect(ctx); conn != nil {
				defer func() { err = errors.Join(err, conn.Close()) }()
			}
		}
		if conn != nil {
			if so, err := is(js); so || err != nil {
				return err
			}
		}
		if err := rig.Pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// connect returns nil while no server listens yet.
func (g *graves) connect(ctx context.Context) (*client.Connection, jetstream.JetStream, error) {
	url, token, err := embedded.ReadClient(g.nats)
	if err != nil {
		return nil, nil, nil
	}
	c, err := client.Connect(ctx, client.Config{Name: "bench", URLs: []string{url}, Token: token, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, nil // left behind by one that was killed
	}
	js, err := jetstream.New(c.Conn())
	return c, js, err
}
