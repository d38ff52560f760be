package driver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// ForkWorker makes the worker, which must be a template, fork another one. It returns that worker,
// with a process, before HELLO. Kill and Transcript of the template include it.
func (w *Worker) ForkWorker() *Worker {
	p, files, outputs, err := newEnds()
	defer func() {
		for _, f := range files {
			_ = f.Close() // the worker has a copy
		}
		for _, out := range outputs {
			_ = out.Close() // no process has adopted them
		}
	}()
	if err != nil {
		w.Fail(err.Error(), "a socket and two pipes")
	}
	fork := &Worker{ctx: w.ctx, reaper: w.reaper, rule: w.rule, limit: w.limit}
	rights := make([]int, 0, len(files))
	for _, f := range files {
		fork.given = append(fork.given, inodeOf(f.Stat()))
		rights = append(rights, int(f.Fd()))
	}
	request := w.recordSent([]Frame{{Text: "FORK with three file descriptors", Bytes: protocol.AppendFork(nil, "")}})
	_, _, _ = w.Process.conn.(*net.UnixConn).WriteMsgUnix(request, unix.UnixRights(rights...), nil) // the reply shows an error
	var forked protocol.ForkedFrame
	w.ExpectJSON(protocol.Forked, &forked)
	if forked.Error != "" || forked.PID <= 1 {
		w.Fail(fmt.Sprintf("FORKED with pid %d and the error %q", forked.PID, forked.Error), "the pid of a process")
	}
	if group, err := syscall.Getpgid(forked.PID); err != nil || group != forked.PID {
		w.Fail(fmt.Sprintf("process %d, which FORKED names, is in process group %d (%v)", forked.PID, group, err), "its own process group")
	}
	p.Process, err = w.reaper.Adopt(w.Process.Process, forked.PID, outputs...)
	files, outputs = files[:1], nil // the process has the other files, or they are closed
	if err != nil {
		_ = p.conn.Close()
		w.Fail(err.Error(), "a process below the template")
	}
	fork.connectTo(p)
	w.forks = append(w.forks, fork)
	return fork
}

// newEnds creates the socket and the pipes of a worker to be forked: the files that are sent to it, and the
// outputs, whose Child is among the files. It returns them also with an error.
func newEnds() (p *Process, files []*os.File, outputs []*childproc.Output, err error) {
	conn, child, err := childproc.Socketpair()
	if err != nil {
		return nil, nil, nil, err
	}
	p = &Process{conn: conn}
	files = append(files, child)
	stdout, err := childproc.NewOutput(counter{p})
	if err != nil {
		return p, files, outputs, errors.Join(err, conn.Close())
	}
	files, outputs = append(files, stdout.Child), append(outputs, stdout)
	stderr, err := childproc.NewOutput(tail{p})
	if err != nil {
		return p, files, outputs, errors.Join(err, conn.Close())
	}
	return p, append(files, stderr.Child), append(outputs, stderr), nil
}

// AwaitParent waits until a forked worker is a child of the reaper.
func AwaitParent(w *Worker) {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for want := w.reaper.PID(); ; {
		parent, err := parentOf(w.Process.PID)
		if err == nil && parent == want {
			return
		}
		select {
		case <-poll.C:
		case <-w.ctx.Done():
			w.Fail(fmt.Sprintf("the parent of process %d is still %d (%v)", w.Process.PID, parent, err), fmt.Sprintf("%d, the process that collects all workers", want))
		}
	}
}

// parentOf returns the fourth field of /proc/PID/stat; the second is a name in parentheses.
func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat has no parent", pid)
	}
	return strconv.Atoi(fields[1])
}

// CheckFiles checks the file descriptors of a worker forked by template: 3, 1 and 2 must be those sent with
// FORK, and none may be the socket of the template.
func CheckFiles(template, w *Worker) {
	at := func(pid int, fd string) uint64 { return inodeOf(os.Stat(fmt.Sprintf("/proc/%d/fd/%s", pid, fd))) }
	pid := w.Process.PID
	for i, fd := range []string{"3", "1", "2"} {
		if at(pid, fd) != w.given[i] {
			w.Fail("file descriptor "+fd+" of the forked worker is another file", "the one that came with FORK")
		}
	}
	socket := at(template.Process.PID, "3")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		w.Fail(err.Error(), "the list of its files")
	}
	for _, f := range open {
		if at(pid, f.Name()) == socket {
			w.Fail("file descriptor "+f.Name()+" of the forked worker is the template's socket", "none but its own")
		}
	}
}

// inodeOf returns the inode number of a file; 0 if there is an error.
func inodeOf(info os.FileInfo, err error) uint64 {
	if err != nil {
		return 0
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ino
}
