package hostinfo

import (
	"errors"
	"io/fs"
	"syscall"
)

// bufferSize is enough for all files that are read.
const bufferSize = 16 << 10

// readSmall reads a file of /proc or of a cgroup into a buffer, which it returns if it was large enough. It takes
// four system calls: os.ReadFile takes six, and the tuner reads about fifty files at a time.
func readSmall(path string, buffer []byte) (text []byte, err error) {
	fd, err := retry(func() (int, error) { return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return buffer, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = syscall.Close(fd) }()
	text = buffer[:0]
	for {
		if len(text) == cap(text) {
			text = append(text, 0)[:len(text)]
		}
		room := text[len(text):cap(text)]
		n, err := retry(func() (int, error) { return syscall.Read(fd, room) })
		if err != nil {
			return text, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 { // the kernel may return a file in parts, of a page for example
			return text, nil
		}
		text = text[:len(text)+n]
	}
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
