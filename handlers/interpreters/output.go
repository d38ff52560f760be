package interpreters

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

const (
	// maxOutput bounds what a probe prints, in bytes.
	maxOutput = 1 << 20
	// outputDelay bounds the wait for the output of processes that a killed probe has started.
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
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end: %w", context.Cause(ctx))
	}
	return out.Bytes(), err
}

// bounded keeps the first maxOutput bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	_, err := b.Buffer.Write(p[:min(len(p), max(0, maxOutput-b.Len()))])
	return len(p), err
}
