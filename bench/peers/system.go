package peers

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/bench/load"
	"github.com/drover-run/drover/bench/proc"
	"github.com/drover-run/drover/bench/work"
)

//go:embed apps/*.py
var apps embed.FS

// environment is where the peers are installed.
type environment struct {
	venv    string // of Python
	gopeers string // the program
}

// contender returns a peer as a contender.
func (e *environment) contender(p peer) load.Contender {
	return load.Contender{Name: p.name, Fastest: p.fastest, InFlight: mostInFlight, Open: func(ctx context.Context, run load.Run) (load.System, error) {
		if err := writeApps(run.Dir); err != nil {
			return nil, err
		}
		broker, err := brokerStarts[p.broker](ctx, run.Dir)
		if err != nil {
			return nil, err
		}
		s := &peerSystem{peer: p, environment: e, run: run, broker: broker}
		if p.broker == "postgres" { // its tables
			err = s.sendByClient(ctx, 0, 0)
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}}
}

func writeApps(dir string) error {
	entries, err := apps.ReadDir("apps")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		text, err := apps.ReadFile("apps/" + entry.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), text, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "work.py"), work.Python, 0o600)
}

type peerSystem struct {
	peer
	*environment

	run     load.Run
	broker  *broker
	workers *load.Process
}

// env is the environment of the workers and of the clients that send.
func (s *peerSystem) env() []string {
	_, own := s.command(s.run.Cell)
	return slices.Concat(s.run.Env(), s.broker.env, own, []string{"PYTHONPATH=" + s.run.Dir, "PYTHONDONTWRITEBYTECODE=1"})
}

// Fill implements load.System.
func (s *peerSystem) Fill(ctx context.Context, messages int) error { return s.Send(ctx, messages, 0) }

// Send implements load.System.
func (s *peerSystem) Send(ctx context.Context, messages, rate int) error {
	if s.next != nil {
		return load.Publish(ctx, s.broker.server.JS, messages, rate, s.next(s.run.Cell.Size))
	}
	return s.sendByClient(ctx, messages, rate)
}

// sendByClient sends by the peer's own client.
func (s *peerSystem) sendByClient(ctx context.Context, messages, rate int) error {
	numbers := []string{strconv.Itoa(messages), strconv.Itoa(s.run.Cell.Size), strconv.Itoa(rate)}
	command := append([]string{s.gopeers, "river"}, numbers...)
	if s.language == "python" {
		app := strings.ToLower(s.name) + "_app.py"
		command = append([]string{filepath.Join(s.venv, "bin", "python"), app}, numbers...)
	}
	client := exec.CommandContext(ctx, command[0], command[1:]...)
	client.Dir, client.Env, client.WaitDelay = s.run.Dir, s.env(), time.Second
	if out, err := client.CombinedOutput(); err != nil {
		return fmt.Errorf("sending to %s: %w\n%s", s.name, errors.Join(err, ctx.Err()), out)
	}
	return nil
}

// Start implements load.System.
func (s *peerSystem) Start(ctx context.Context) (err error) {
	args, _ := s.command(s.run.Cell)
	program := s.gopeers
	if s.language == "python" {
		program, args = filepath.Join(s.venv, "bin", args[0]), args[1:]
	}
	s.workers, err = load.StartProcess(ctx, s.run.Dir, s.env(), program, args...)
	return err
}

// Processes implements load.System.
func (s *peerSystem) Processes() (p load.Processes, err error) {
	if p.Workers, err = s.workers.Tree(); err != nil {
		return p, err
	}
	p.Broker, err = proc.Tree(s.broker.process.PID())
	return p, err
}

// Close implements load.System.
func (s *peerSystem) Close() (err error) {
	if s.workers != nil {
		err = s.workers.Close()
	}
	return errors.Join(err, s.broker.close())
}
