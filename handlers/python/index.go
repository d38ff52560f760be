package python

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"

	"github.com/drover-run/drover/handlers/workers/process"
)

// maxIndex bounds the answer of an index, in bytes.
const maxIndex = 64 << 20

// RunIndex runs the worker's process once, to index a function app: it sends the request, and returns
// the answer, both as JSON. starter.Command is what WorkerCommand returns. The end of ctx kills the
// process. The error has the end of the process, with the last lines of its standard error.
func RunIndex(ctx context.Context, starter *process.Starter, request []byte) (answer []byte, err error) {
	starter.Command.Args = append(slices.Clone(starter.Command.Args), "index")
	p, err := starter.Start()
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = p.Conn.Close()
		<-p.Ended()
	}()
	defer context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })()
	if _, err = p.Conn.Write(request); err == nil {
		err = p.Conn.(*net.UnixConn).CloseWrite()
	}
	if err == nil {
		answer, err = io.ReadAll(io.LimitReader(p.Conn, maxIndex+1))
	}
	if err == nil && len(answer) > 0 && len(answer) <= maxIndex {
		p.Signal(syscall.SIGKILL) // it may have left children
		return answer, nil
	}
	p.Signal(syscall.SIGKILL)
	<-p.Ended()
	how, _ := p.HowEnded()
	if ctx.Err() != nil {
		how = "it did not end in time"
	}
	if last := p.LastLines(); last != "" {
		how += "; its last lines:\n" + last
	}
	return nil, fmt.Errorf("it sent no answer: %s", how)
}
