package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// SyscallCounter counts the system calls of processes.
type SyscallCounter struct {
	Tool string // perf or strace; empty: neither works here
	// Disturbs is whether counting slows the processes: strace stops them at each call.
	Disturbs bool
}

// FindSyscallCounter finds an installed program that counts system calls.
func FindSyscallCounter(ctx context.Context) SyscallCounter {
	for _, c := range []SyscallCounter{{Tool: "perf"}, {Tool: "strace", Disturbs: true}} {
		own := []int{os.Getpid()}
		if _, err := c.Count(ctx, own, 100*time.Millisecond); err == nil {
			return c
		}
	}
	return SyscallCounter{}
}

// ErrNoCounter is a machine without perf and strace, or without the right to use them.
var ErrNoCounter = errors.New("system calls need perf or strace, and the right to use them")

// Count returns how many system calls processes make in a time.
func (c SyscallCounter) Count(ctx context.Context, pids []int, d time.Duration) (int64, error) {
	if len(pids) == 0 {
		return 0, nil
	}
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	switch c.Tool {
	case "perf":
		return countByPerf(ctx, list, d)
	case "strace":
		return countByStrace(ctx, list, d)
	}
	return 0, ErrNoCounter
}

func countByPerf(ctx context.Context, pids []string, d time.Duration) (int64, error) {
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", strings.Join(pids, ","),
		"--timeout", strconv.FormatInt(max(d.Milliseconds(), 100), 10))
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("perf stat: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(line, ","); len(fields) > 2 && fields[2] == "raw_syscalls:sys_enter" {
			if fields[0] == "<not counted>" { // the processes slept
				return 0, nil
			}
			return strconv.ParseInt(fields[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("perf stat counted nothing:\n%s", out)
}

func countByStrace(ctx context.Context, pids []string, d time.Duration) (int64, error) {
	args := []string{"-c", "-f", "-q"}
	for _, pid := range pids {
		args = append(args, "-p", pid)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "strace", args...)
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	// It detaches, prints its table and ends by the same signal.
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, errors.Join(err, cmd.Wait())
	}
	waited := cmd.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) < 4 || fields[len(fields)-1] != "total" {
		return 0, fmt.Errorf("strace printed no total: %w\n%s", errors.Join(waited, ctx.Err()), out.String())
	}
	return strconv.ParseInt(fields[3], 10, 64)
}
