package childproc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file and reaper_*.go run in the reaper's own process: one goroutine reads requests, and
// another does everything else.

func init() {
	if len(os.Args) > 0 && os.Args[0] == reaperName {
		// The init functions run on the main thread, which lives as long as the process: the kernel
		// sends the parent-death signal when a thread ends. syscall.Exit skips the exit work of the
		// race detector and of coverage.
		syscall.Exit(runReaper())
	}
}

const (
	// reaperSocket is the file descriptor of the socket to the daemon.
	reaperSocket = 3
	// sweepLimit bounds how long the exit of a process is delayed until its remaining
	// descendants have ended: a killed process that waits for a broken disk does not end.
	sweepLimit = time.Second
	// endLimit is the same bound for all remaining processes after the daemon has ended.
	endLimit = 10 * time.Second
	// lookAgain is the interval of checks while a process is expected to end.
	lookAgain = 20 * time.Millisecond
)

// leader is a process that was started or adopted. Its descendants belong to it.
type leader struct {
	id             uint64
	pid            int
	isChild        bool      // it is the reaper's child; an adopted process is not one at first
	zombie         time.Time // when it was found ended without being the reaper's child; zero: it was not
	ended          time.Time // when it was found ended; zero: it runs
	hasDescendants bool      // some of its descendants still exist
	cpu            time.Duration
	status         syscall.WaitStatus
	rusage         syscall.Rusage
	collected      bool // its exit status was collected
}

// reaper is the state of the reaper's process.
type reaper struct {
	marked     bool // processes are marked with the number of their leader
	leaders    map[uint64]*leader
	byPID      map[int]*leader
	hasUnowned bool // there are children of no leader, which must end
}

// request is a message from the daemon.
type request struct {
	kind      byte
	f         *fields
	files     []int
	filesLost bool // some of its file descriptors did not arrive
}

// runReaper runs the reaper, and returns its exit status.
func runReaper() int {
	spareThreads()
	closeInherited()
	unix.CloseOnExec(reaperSocket)
	// Catch the signals that would end or stop the reaper, since the daemon decides when it ends.
	// They are not ignored, because children would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTSTP)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	r := &reaper{leaders: make(map[uint64]*leader), byPID: make(map[int]*leader)}
	var err error
	if r.marked, err = prepareReaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	marked := uint32(0)
	if r.marked {
		marked = 1
	}
	if !sendMessage(newMessage(kindReady, 0, 0).addUint32(marked)) {
		fmt.Fprintln(os.Stderr, "this is started by drover itself")
		return 1
	}
	requests, handled := make(chan request), make(chan struct{})
	go func() {
		defer close(requests)
		for {
			q, err := readRequest()
			if err != nil {
				return
			}
			requests <- q
			<-handled // meanwhile no descriptor may arrive that a child could inherit
		}
	}()
	tick := time.NewTicker(lookAgain)
	tick.Stop()
	for ticking := false; ; {
		select {
		case q, open := <-requests:
			if !open {
				return r.killAll(children)
			}
			r.handleRequest(q)
			handled <- struct{}{}
		case <-children:
			r.checkChildren()
		case <-tick.C:
			r.checkChildren()
		}
		switch busy := r.needsSweep(); {
		case busy && !ticking:
			tick.Reset(lookAgain)
		case !busy && ticking:
			tick.Stop()
		}
		ticking = r.needsSweep()
	}
}

// closeInherited closes inherited files, except for the socket. Otherwise they would stay open as
// long as the reaper runs, because exec does not close them. Files opened by the Go runtime must stay
// open.
func closeInherited() {
	var fds []int
	for _, folder := range []string{"/proc/self/fd", "/dev/fd"} {
		names, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, name := range names {
			if fd, err := strconv.Atoi(name.Name()); err == nil {
				fds = append(fds, fd)
			}
		}
		break
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 && fd > reaperSocket {
			_ = unix.Close(fd)
		}
	}
}

// spares is more threads than Go's runtime usually needs for blocking system calls.
const spares = 16

// spareThreads creates threads that the runtime keeps for later. The runtime creates threads on
// demand, and ends the program if it cannot. But the daemon and its reaper must survive a worker
// that has used up the limit of processes.
func spareThreads() {
	var made, done sync.WaitGroup
	made.Add(spares)
	for range spares {
		done.Go(func() {
			runtime.LockOSThread() // while this goroutine waits, no other uses its thread
			defer runtime.UnlockOSThread()
			made.Done()
			made.Wait()
		})
	}
	done.Wait()
}

// readRequest reads one request.
func readRequest() (q request, err error) {
	var head [headSize]byte
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	var n, got, flags int
	for {
		n, got, flags, _, err = unix.Recvmsg(reaperSocket, head[:], rights, receiveFlags)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || n == 0 {
		return q, errors.Join(err, errors.New("the daemon is gone"))
	}
	if got > 0 {
		if q.files, err = parseRights(rights[:got]); err != nil {
			return q, err
		}
	}
	for _, fd := range q.files {
		unix.CloseOnExec(fd)
	}
	if err := readFull(head[n:]); err != nil {
		return q, err
	}
	length, kind, files, err := parseHead(head[:])
	if err != nil {
		return q, err
	}
	rest := make([]byte, length)
	if err := readFull(rest); err != nil {
		return q, err
	}
	q.kind, q.f = kind, &fields{rest: rest}
	q.filesLost = files != len(q.files) || flags&unix.MSG_CTRUNC != 0
	return q, nil
}

func parseRights(b []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		more, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

func readFull(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(reaperSocket, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("the daemon is gone")
		}
		b = b[n:]
	}
	return nil
}

// sendMessage sends a message to the daemon. It reports whether it succeeded.
func sendMessage(m message) bool {
	m, err := m.withLength()
	if err != nil {
		return false
	}
	for len(m) > 0 {
		n, err := unix.Write(reaperSocket, m)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false // readRequest detects that the daemon has ended
		}
		m = m[n:]
	}
	return true
}

func refuseRequest(id uint64, errno syscall.Errno, text string) {
	sendMessage(newMessage(kindRefused, 0, id).addUint32(uint32(errno)).addString(text))
}

// handleRequest carries out a request. It refuses invalid ones.
func (r *reaper) handleRequest(q request) {
	defer func() {
		for _, fd := range q.files {
			_ = unix.Close(fd)
		}
	}()
	id := q.f.readUint64()
	switch q.kind {
	case kindStart:
		r.startChild(id, q)
	case kindSignal:
		signal := syscall.Signal(q.f.readUint32())
		if l := r.leaders[id]; l != nil && q.f.checkEnd() == nil {
			_ = syscall.Kill(-l.pid, signal) // the group may have ended
			if !l.isChild {
				r.checkChildren()
			}
		}
	case kindAdopt:
		r.adoptProcess(id, q.f)
	default:
		refuseRequest(id, 0, fmt.Sprintf("a request of type %d", q.kind))
	}
}

func (r *reaper) startChild(id uint64, q request) {
	path, name, dir, args, env := q.f.readString(), q.f.readString(), q.f.readString(), q.f.readStrings(), q.f.readStrings()
	switch {
	case q.filesLost:
		refuseRequest(id, unix.EMFILE, "handing over its files")
		return
	case q.f.checkEnd() != nil || r.leaders[id] != nil:
		refuseRequest(id, 0, errMessage.Error())
		return
	case len(r.leaders) >= maxProcesses:
		refuseRequest(id, 0, fmt.Sprintf("there are %d processes already", len(r.leaders)))
		return
	}
	files := make([]uintptr, len(q.files))
	for i, fd := range q.files {
		files[i] = uintptr(fd)
	}
	unmark, err := r.markForks(id)
	if err != nil {
		refuseRequest(id, errnoOf(err), "marking it")
		return
	}
	pid, err := syscall.ForkExec(path, append([]string{name}, args...), &syscall.ProcAttr{Dir: dir, Env: env, Files: files, Sys: leaderAttributes()})
	unmark()
	if err != nil {
		text := ""
		if dir != "" {
			if info, gone := os.Stat(dir); gone != nil || !info.IsDir() {
				text = "entering " + dir
			}
		}
		refuseRequest(id, errnoOf(err), text)
		return
	}
	r.addLeader(&leader{id: id, pid: pid, isChild: true})
}

func (r *reaper) addLeader(l *leader) {
	r.leaders[l.id], r.byPID[l.pid] = l, l
	sendMessage(newMessage(kindStarted, 0, l.id).addUint32(uint32(l.pid)))
}

func (r *reaper) adoptProcess(id uint64, f *fields) {
	parent, pid := r.leaders[f.readUint64()], int(f.readUint32())
	switch {
	case f.checkEnd() != nil || r.leaders[id] != nil:
		refuseRequest(id, 0, errMessage.Error())
	case parent == nil:
		refuseRequest(id, 0, "the process that forked it has ended")
	case pid <= 1 || r.byPID[pid] != nil:
		refuseRequest(id, 0, "it is not a process that another has just forked")
	case len(r.leaders) >= maxProcesses:
		refuseRequest(id, 0, fmt.Sprintf("there are %d processes already", len(r.leaders)))
	default:
		if why := r.takeOver(id, parent, pid); why != "" {
			refuseRequest(id, 0, why)
			return
		}
		r.addLeader(&leader{id: id, pid: pid})
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return 0
}
