package httptrigger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen listens on an address. With shared, other processes of the user may, too.
func listen(ctx context.Context, address string, shared bool) (net.Listener, error) {
	var c net.ListenConfig
	if shared {
		c.Control = func(_, _ string, raw syscall.RawConn) error { return setShared(raw) }
	}
	l, err := c.Listen(ctx, "tcp", address)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen on %s, because another program does; set http.listen to another port, or stop that program", address)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return l, nil
}

func setShared(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, failed)
}

// Reserve reserves an address for processes that share it, and accepts no connections itself. It
// fails if another program listens there. The reservation ends when it is closed.
func Reserve(ctx context.Context, address string) (io.Closer, error) {
	alone, err := listen(ctx, address, false)
	if err != nil {
		return nil, err
	}
	at, _ := alone.Addr().(*net.TCPAddr)
	if err := alone.Close(); err != nil {
		return nil, err
	}
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: at.Port, Addr: [16]byte(at.IP.To16())})
	if v4 := at.IP.To4(); v4 != nil {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(v4)}
	}
	syscall.ForkLock.RLock() // no process that starts now gets the socket
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	held := os.NewFile(uintptr(fd), address)
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot reserve %s: %w", address, err), held.Close())
	}
	return held, nil
}
