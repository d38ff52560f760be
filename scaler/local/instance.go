package local

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// instance is one child process. The provisioner's mu guards its fields, except gone and what
// is read after it.
type instance struct {
	id       int
	cmd      *exec.Cmd
	down     *os.File // the pipe to the instance
	state    state
	since    time.Time // of the state
	inFlight int64
	killed   string // why the provisioner killed it

	gone    chan struct{} // closed when it has ended, and its last report was read
	err     error         // the result of Wait
	reading sync.WaitGroup
}

const (
	// maxReport bounds a line from an instance, in bytes.
	maxReport = 1 << 20
	// outputGrace bounds how long the output of an ended instance is read, in case a process
	// that it left behind keeps it open.
	outputGrace = time.Second
)

// startInstance starts an instance. The caller holds mu.
func (p *Provisioner) startInstance(now time.Time) (*instance, error) {
	i := &instance{id: p.freeID(), since: now, gone: make(chan struct{})}
	var hello json.RawMessage
	if p.cfg.Hello != nil {
		var err error
		if hello, err = p.cfg.Hello(i.id); err != nil {
			return nil, err
		}
	}
	theirs, down, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	up, theirUp, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a pipe: %w", err), theirs.Close(), down.Close())
	}
	i.down = down
	i.cmd = exec.Command(p.cfg.Command.Path, p.cfg.Command.Args...)
	i.cmd.Env = append(slices.Clone(p.cfg.Command.Env), fmt.Sprintf("%s=%d", mark, i.id))
	i.cmd.Stdout, i.cmd.Stderr = p.cfg.Command.Stdout, p.cfg.Command.Stderr
	i.cmd.ExtraFiles = []*os.File{theirs, theirUp} // 3 and 4
	i.cmd.WaitDelay = outputGrace
	// Its own process group: a ^C at the terminal reaches only the daemon, which drains
	// the instance. A kill of the group also kills its workers.
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = i.cmd.Start()
	_ = theirs.Close() // the child has its own
	_ = theirUp.Close()
	if err != nil {
		return nil, errors.Join(err, down.Close(), up.Close())
	}
	// The settings may be larger than a pipe's buffer, and the child may be slow to read them.
	i.reading.Go(func() {
		_, _ = down.Write(append(hello, '\n')) // Wait reports a child that has exited
	})
	i.reading.Go(func() { p.readReports(i, up) })
	go func() {
		i.err = i.cmd.Wait()
		_ = syscall.Kill(-i.cmd.Process.Pid, syscall.SIGKILL) // any process that it left behind
		_ = down.Close()
		i.reading.Wait()
		close(i.gone)
		p.wakeUp()
	}()
	return i, nil
}

// freeID returns the lowest ID that no instance has. The caller holds mu.
func (p *Provisioner) freeID() int {
	for id := 1; ; id++ {
		free := true
		for _, i := range p.instances {
			free = free && i.id != id
		}
		if free {
			return id
		}
	}
}

// readReports reads an instance's reports until it closes its end.
func (p *Provisioner) readReports(i *instance, up *os.File) {
	defer func() { _ = up.Close() }() // it was only read
	lines := bufio.NewScanner(up)
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			p.cfg.Log.Error("cannot read a report of an instance: it is not JSON", "instance", i.id, "error", err)
			continue
		}
		p.handleReport(i, r)
	}
	if err := lines.Err(); err != nil {
		p.cfg.Log.Error("cannot read an instance's reports", "instance", i.id, "error", err)
	}
}

// startDrain requests that the instance drains, by closing the pipe to it.
func (i *instance) startDrain() { _ = i.down.Close() }

// killGroup kills the instance and all processes of its group.
func (i *instance) killGroup(why string) {
	if i.killed == "" {
		i.killed = why
	}
	_ = syscall.Kill(-i.cmd.Process.Pid, syscall.SIGKILL) // it may have exited already
}

func (i *instance) wait() { <-i.gone }

// endReason describes how it ended.
func (i *instance) endReason() string {
	switch {
	case i.killed != "":
		return i.killed
	case i.err != nil:
		return i.err.Error()
	}
	return "exit status 0"
}
