package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed app/celery_app.py
var celeryApp []byte

// debianPython is the one that Debian's packages are for.
const debianPython = "/usr/bin/python3"

type celeryCommand struct {
	Rounds         int `default:"5" help:"Rounds; each runs Celery and drover once."`
	Messages       int `default:"300000" help:"Messages for drover, each round."`
	CeleryMessages int `default:"20000" help:"Messages for Celery, each round."`
}

// Run measures Celery's prefork pool and drover's inline Python, both with two
// processes and 128 bytes a message. Both are filled before the clock starts.
func (c *celeryCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.Messages < 1 || c.CeleryMessages < 1000 {
		return errors.New("--rounds and --messages must be at least 1, --celery-messages at least 1000")
	}
	for _, program := range []string{"celery", "redis-server"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed; on Debian: apt-get install celery redis-server python3-redis", program)
		}
	}
	r, err := newRig(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.fill(ctx, c.Messages, 128, nil); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "celery_app.py"), celeryApp, 0o600); err != nil {
		return err
	}
	rates := make(map[string][]float64)
	for round := range c.Rounds {
		rate, err := c.celery(ctx, r.dir)
		if err != nil {
			return fmt.Errorf("celery: %w", err)
		}
		rates["celery"] = append(rates["celery"], rate)
		for _, s := range setups[1:3] {
			took, err := r.drover(ctx, c.Messages, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			rates[s.name] = append(rates[s.name], float64(c.Messages)/took.Seconds())
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, c.Rounds)
	}
	base := median(rates["celery"])
	for _, name := range append([]string{"celery"}, names(setups[1:3])...) {
		m := median(rates[name])
		fmt.Printf("%-16s %9.0f/s  %6.1f × celery\n", name, m, m/base)
	}
	return nil
}

// celery fills a queue, starts a worker and returns the messages a second from
// when a twentieth was done to when all were, so that its start is not counted.
func (c *celeryCommand) celery(ctx context.Context, dir string) (rate float64, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return 0, err
	}
	redis := exec.CommandContext(ctx, "redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--dir", dir)
	if err := redis.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = redis.Process.Kill(); _ = redis.Wait() }() // it keeps nothing
	broker, err := dialRedis(ctx, port)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, broker.conn.Close()) }()

	env := append(os.Environ(), fmt.Sprintf("BROKER=redis://127.0.0.1:%d/0", port))
	fill := exec.CommandContext(ctx, debianPython, "celery_app.py", strconv.Itoa(c.CeleryMessages))
	fill.Dir, fill.Env = dir, env
	if out, err := fill.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("filling its queue: %w\n%s", err, out)
	}
	worker := exec.CommandContext(ctx, debianPython, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--concurrency", "2",
		"--prefetch-multiplier", "64", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
	worker.Dir, worker.Env = dir, slices.Concat(env, []string{"C_FORCE_ROOT=1"})
	if err := worker.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = worker.Process.Signal(os.Interrupt); _ = worker.Wait() }() // its own exit status is of no use here

	n := c.CeleryMessages
	first := n - n/20
	var start time.Time
	var startLeft int
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := broker.left()
		if err != nil {
			return 0, err
		}
		switch {
		case start.IsZero() && left <= first:
			start, startLeft = time.Now(), left
		case left == 0:
			return float64(startLeft) / time.Since(start).Seconds(), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// redisClient asks two numbers of a Redis server, by its inline protocol.
type redisClient struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialRedis(ctx context.Context, port int) (*redisClient, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			return &redisClient{conn, bufio.NewReader(conn)}, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("redis-server did not start: %w", err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// left counts the messages that are waiting, and those that a worker has and
// has not acknowledged (kombu's names).
func (c *redisClient) left() (n int, err error) {
	if _, err := fmt.Fprint(c.conn, "LLEN celery\r\nHLEN unacked\r\n"); err != nil {
		return 0, err
	}
	for range 2 {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		v, err := strconv.Atoi(strings.Trim(line, ":\r\n"))
		if err != nil {
			return 0, fmt.Errorf("redis answered %q", line)
		}
		n += v
	}
	return n, nil
}
