package interpreters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

const (
	// maxOutput bounds the output of a probe, in bytes.
	maxOutput = 1 << 20
	// outputDelay bounds the wait for the output of child processes that outlive a probe.
	outputDelay = time.Second
)

// commandOutput runs a program and returns its output. The end of ctx kills it with all
// processes that it has started: an interpreter can be a script that runs another program.
func commandOutput(ctx context.Context, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputDelay
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("it did not end: %w", context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay):
		// It exited with status 0, but a child process still holds its output, as can happen with
		// pyenv's scripts on a busy machine.
		err = nil
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the child may have just ended
	}
	return out.Bytes(), err
}

// bounded keeps the first maxOutput bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	_, err := b.Buffer.Write(p[:min(len(p), max(0, maxOutput-b.Len()))])
	return len(p), err
}
