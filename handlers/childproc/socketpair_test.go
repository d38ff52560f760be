package childproc

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// accepted returns how many bytes a socket accepts while nobody reads them.
func accepted(t *testing.T, fd int) (n int) {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 16<<10); ; {
		wrote, err := unix.Write(fd, chunk)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n += wrote
	}
}

// TestSendBuffer checks that both ends of a Socketpair accept more than those of a plain pair, even
// where the kernel grants less than sendBuffer.
func TestSendBuffer(t *testing.T) {
	t.Parallel()
	plain, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	usual := accepted(t, plain[0])
	if err := errors.Join(unix.Close(plain[0]), unix.Close(plain[1])); err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var toChild int
	if err := raw.Control(func(fd uintptr) { toChild = accepted(t, int(fd)) }); err != nil {
		t.Fatal(err)
	}
	toDaemon := accepted(t, int(theirs.Fd()))
	if toChild <= usual || toDaemon <= usual {
		t.Errorf("the ends accept %d and %d bytes, those of a plain pair %d", toChild, toDaemon, usual)
	}
	if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
		t.Error(err)
	}
}

// TestSendBufferRefused checks that a descriptor without a send buffer is left as it is: the
// processes start, only slower ones.
func TestSendBufferRefused(t *testing.T) {
	t.Parallel()
	reads, writes, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	raiseSendBuffer(int(writes.Fd()))
	if _, err := writes.WriteString("x"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(reads.Close(), writes.Close()); err != nil {
		t.Error(err)
	}
}
