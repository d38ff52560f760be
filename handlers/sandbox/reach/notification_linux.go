package reach

import (
	"errors"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// errPending means that the call is answered later.
	errPending = syscall.Errno(1 << 20)
	// errLetThrough makes the kernel perform the call as the worker's own.
	errLetThrough = syscall.Errno(1<<20 + 1)
)

// notification is struct seccomp_notif: a call whose thread waits for a response.
type notification struct {
	id    uint64
	pid   uint32 // of the thread
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	err   int32 // negative
	flags uint32
}

const (
	// maxWaiting bounds the waiting calls of a listener: each holds a descriptor, and up to
	// maxChunk bytes.
	maxWaiting = 256
	// waitTick is the interval in which a waiting call checks whether to continue.
	waitTick = 20 * time.Millisecond
)

// waiters bounds the threads that wait for sockets, over all listeners. A call without such a
// thread polls every few milliseconds.
var waiters = make(chan struct{}, 64)

// server serves the calls of one listener.
type server struct {
	rules     Rules
	pidfd     int // of the last calling thread; -1 if there is none
	thread    uint32
	waiting   sync.WaitGroup
	waitSlots chan struct{}
	data      []byte     // buffer of messages that are sent at once
	mode      sync.Mutex // held while a socket is temporarily non-blocking
}

// call is a system call of a worker.
type call struct {
	notification
	server *server
	conn   syscall.RawConn
	socket int // the daemon's duplicate; -1 before there is one

	family, kind int // of the socket

	sent   int
	files  []int  // the daemon's duplicates of sent descriptors
	length uint64 // address at which sendmmsg stores the sent length; 0: none
}

func (c *call) closeFiles() {
	for _, fd := range append(c.files, c.socket) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	c.files, c.socket = nil, -1
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	return errno
}

// sendResponse responds to a call. It fails if the caller was killed.
func (c *call) sendResponse(listener int, err syscall.Errno) {
	c.closeFiles()
	r := response{id: c.id}
	if err == errLetThrough {
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	} else if value, err := c.returnValue(err); err != 0 {
		r.err = -int32(err)
	} else {
		r.value = int64(value)
	}
	_ = ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) //nolint:gosec // the kernel takes it so
}

// isWaiting reports whether the caller still waits; if so, its thread ID was not reused.
func (c *call) isWaiting(listener int) bool {
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.id)) == 0 //nolint:gosec // the kernel takes it so
}

// duplicateFD duplicates a descriptor of the caller.
func (s *server) duplicateFD(thread uint32, fd int) (int, syscall.Errno) {
	if s.pidfd >= 0 && s.thread == thread {
		if got, err := unix.PidfdGetfd(s.pidfd, fd, 0); !errors.Is(err, unix.ESRCH) {
			return got, errnoOf(err)
		}
	}
	s.closePidfd()
	pidfd, err := unix.PidfdOpen(int(thread), unix.PIDFD_THREAD)
	s.thread = thread
	if errors.Is(err, unix.EINVAL) { // before Linux 6.9: open the process, whose descriptors are the same
		pidfd, err = unix.PidfdOpen(processOf(thread), 0)
		s.thread = 0 // it may outlive the thread
	}
	if err != nil {
		return -1, errnoOf(err)
	}
	s.pidfd = pidfd
	got, err := unix.PidfdGetfd(pidfd, fd, 0)
	return got, errnoOf(err)
}

func (s *server) closePidfd() {
	if s.pidfd >= 0 {
		_ = unix.Close(s.pidfd)
	}
	s.pidfd = -1
}

func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EPERM
}

// continueLater continues a call that must wait, on its own goroutine. It returns EAGAIN if
// there are too many.
func (c *call) continueLater(try func(listener int) syscall.Errno) syscall.Errno {
	select {
	case c.server.waitSlots <- struct{}{}:
	default:
		return unix.EAGAIN
	}
	var until time.Time
	if limit, err := unix.GetsockoptTimeval(c.socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil && limit.Nano() > 0 {
		until = time.Now().Add(time.Duration(limit.Nano()))
	}
	c.server.waiting.Go(func() {
		defer func() { <-c.server.waitSlots }()
		looked, done := time.Now(), false
		for !done {
			c.awaitWritable()
			err := c.conn.Control(func(fd uintptr) {
				listener := int(fd)
				if done = !c.isWaiting(listener); done {
					return
				}
				err := try(listener)
				if now := time.Now(); err == unix.EAGAIN && now.Sub(looked) >= waitTick {
					if looked = now; hasSignal(c.pid) {
						err = unix.EINTR
					}
					if done = !until.IsZero() && now.After(until); done && c.nr == unix.SYS_CONNECT {
						err = unix.EINPROGRESS
					}
				}
				if done = done || err != unix.EAGAIN; done {
					c.sendResponse(listener, err)
				}
			})
			done = done || err != nil // the listener is closed
		}
		c.closeFiles()
	})
	return errPending
}

// awaitWritable waits until the socket is writable, at most one tick.
func (c *call) awaitWritable() {
	select {
	case waiters <- struct{}{}:
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.socket), Events: unix.POLLOUT}}, int(waitTick.Milliseconds()))
		<-waiters
	case <-time.After(waitTick / 4):
	}
}

// returnValue returns the return value of a call that has finished or was interrupted.
func (c *call) returnValue(err syscall.Errno) (int, syscall.Errno) {
	value := c.sent
	if c.sent > 0 {
		err = 0
	}
	if c.length != 0 && err == 0 {
		sent := uint32(c.sent)
		local := unix.Iovec{Base: (*byte)(unsafe.Pointer(&sent))} //nolint:gosec // the kernel takes it so
		local.SetLen(4)
		_, writeErr := unix.ProcessVMWritev(int(c.pid), []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(c.length), Len: 4}}, 0)
		value, err = 1, errnoOf(writeErr)
	}
	return value, err
}
