package worker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// forkLimit bounds the forking of one worker.
const forkLimit = 10 * time.Second

// ForkProcess requests a process from a template. It passes the files to it, and returns its
// process ID.
func (w *Worker) ForkProcess(temporary string, files []*os.File) (pid int, err error) {
	conn, ok := w.Process.Conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("its template has no socket of the right kind")
	}
	var rights []int
	for _, f := range files {
		rights = append(rights, int(f.Fd()))
	}
	frame := protocol.AppendFork(nil, temporary)
	if n, _, err := conn.WriteMsgUnix(frame, unix.UnixRights(rights...), nil); err != nil || n != len(frame) {
		return 0, fmt.Errorf("writing %d of %d bytes to the template: %w", n, len(frame), err)
	}
	limit := time.NewTimer(forkLimit)
	defer limit.Stop()
	select {
	case answer := <-w.forked:
		if answer.Error != "" {
			return 0, errors.New(answer.Error)
		}
		return answer.PID, nil
	case <-w.Gone:
		return 0, fmt.Errorf("the template is gone: %w", w.Reason)
	case <-limit.C:
		err := fmt.Errorf("the template did not fork within %v", forkLimit)
		w.Kill(process.CauseStart, err)
		return 0, err
	}
}
