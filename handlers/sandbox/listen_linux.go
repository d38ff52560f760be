package sandbox

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/sandbox/launch"
	"github.com/drover-run/drover/handlers/sandbox/reach"
)

// serveCalls waits for the listener of the calls that the daemon performs for a worker, and serves
// it until all processes have ended that inherited the filter: workers forked from a template
// outlive its Box.
func (b *Box) serveCalls() {
	c := b.confinement
	listener := b.receiveListener()
	if listener != nil {
		c.mu.Lock()
		c.listeners[listener] = struct{}{}
		c.mu.Unlock()
	}
	close(b.listenerSettled)
	if listener == nil {
		return
	}
	reach.Serve(listener, reach.Rules{TCP: c.settings.Connect, UnixSockets: c.settings.UnixSockets})
	c.mu.Lock()
	delete(c.listeners, listener)
	c.mu.Unlock()
}

// receiveListener receives the listener; nil if the launch stage sent something else.
func (b *Box) receiveListener() (listener *os.File) {
	conn, err := b.ours.SyscallConn()
	if err != nil {
		return nil
	}
	one, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_ = conn.Read(func(fd uintptr) bool {
		n, size, _, _, err := unix.Recvmsg(int(fd), one, rights, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err != nil || n == 0 {
			return true
		}
		messages, err := unix.ParseSocketControlMessage(rights[:size])
		if err != nil || len(messages) == 0 || one[0] != launch.Listener {
			b.firstBytes = one
			return true
		}
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && unix.SetNonblock(fds[0], true) == nil {
			listener = os.NewFile(uintptr(fds[0]), "calls")
		}
		return true
	})
	return listener
}
