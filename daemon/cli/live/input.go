package live

import (
	"io"

	"golang.org/x/sys/unix"
)

// HideInput turns off the terminal's echo, which would appear in the frame and move it, until show is
// called. Ctrl-C still interrupts. If in is not a terminal, it does nothing.
func HideInput(in io.Reader) (show func()) {
	file, isFile := in.(interface{ Fd() uintptr })
	if !isFile {
		return func() {}
	}
	fd := int(file.Fd())
	mode, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return func() {}
	}
	hidden := *mode
	hidden.Lflag &^= unix.ECHO
	if unix.IoctlSetTermios(fd, setTermios, &hidden) != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, setTermios, mode) } // the terminal may be gone
}
