package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/drover-run/drover/bench/proc"

	"github.com/drover-run/drover/bench/rig"
)

// Process is a process of a contender, with all that it starts.
type Process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it has ended, with err
	err  error
}

// StartProcess starts a command in a directory. Its output goes to a file, whose end is part of
// errors.
func StartProcess(ctx context.Context, dir string, env []string, name string, args ...string) (*Process, error) {
	log, err := os.CreateTemp(dir, "log-")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID returns the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Tree returns the process and its descendants, or an error if it has ended.
func (p *Process) Tree() ([]int, error) {
	select {
	case <-p.done:
		return nil, fmt.Errorf("%s has ended: %w\n%s", p.cmd.Path, p.err, p.Output())
	default:
		return proc.Tree(p.PID())
	}
}

// Output returns the end of the process's output.
func (p *Process) Output() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// Close ends the process with SIGTERM, and with SIGKILL after five seconds, and kills all that it
// started.
func (p *Process) Close() error {
	tree, err := proc.Tree(p.PID())
	if err != nil {
		return err
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-p.done: // its exit status says nothing after a signal
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	for _, pid := range tree[1:] {
		_ = syscall.Kill(pid, syscall.SIGKILL) // most have ended
	}
	return p.log.Close()
}

// WaitForPort waits until something listens, or the process ends.
func (p *Process) WaitForPort(ctx context.Context, address string) error {
	deadline := time.Now().Add(startLimit)
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if _, ended := p.Tree(); ended != nil || time.Now().After(deadline) {
			return errors.Join(err, ended)
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// FreePort returns a local port that is free now.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}
