// Package readfile reads the files of a configuration. It bounds their size and the wait for a
// pipe, and it opens no device. Its functions may be called from any goroutine.
package readfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// MaxConfig bounds a configuration file, in bytes.
	MaxConfig = 1 << 20
	// MaxValue bounds the file of a file:PATH value, in bytes.
	MaxValue = 64 << 10
	// pipePatience bounds the wait for a configuration that comes through a pipe.
	pipePatience = time.Minute
)

// Value returns the contents of the file of a file:PATH value, without a line break at the end. A
// relative name is relative to dir.
func Value(name, dir string) (string, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	file, err := openWithoutWait(path, fs.FileMode.IsRegular)
	if err != nil {
		return "", fmt.Errorf("the file %s cannot be read: %w", name, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	text, err := readAtMost(file, MaxValue)
	if err != nil {
		return "", fmt.Errorf("the file %s cannot be read: %w", name, err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// openWithoutWait opens a file if its kind is allowed. It never waits for a FIFO's writer, and
// never opens a device, because that can have side effects.
func openWithoutWait(path string, allowed func(fs.FileMode) bool) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if !allowed(info.Mode()) {
		return nil, fmt.Errorf("it is %s; use a regular file", fileKind(info.Mode()))
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	// The file may have been replaced since.
	if info, err = file.Stat(); err == nil && !allowed(info.Mode()) {
		err = fmt.Errorf("it is %s; use a regular file", fileKind(info.Mode()))
	}
	if err != nil {
		_ = file.Close() // nothing was read
		return nil, err
	}
	return file, nil
}

func fileKind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "no regular file"
}

// readAtMost reads to the end; a file with more bytes is an error.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("it has more than %d bytes, the maximum", most)
	}
	return text, nil
}

// Plain returns the text of a configuration that is a regular file.
func Plain(path string) ([]byte, error) {
	file, err := openWithoutWait(path, fs.FileMode.IsRegular)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	return readAtMost(file, MaxConfig)
}

// Config returns a configuration's text and its directory, if accept returns no error for the open
// file. ctx ends the wait for a pipe, such as /dev/stdin or that of a shell's <(command).
func Config(ctx context.Context, path string, accept func(path string, file *os.File) error) (text []byte, dir string, err error) {
	file, err := openWithoutWait(path, func(mode fs.FileMode) bool {
		return mode.IsRegular() || mode&fs.ModeNamedPipe != 0
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", fmt.Errorf("no configuration %s; name another file, or run \"drover init\"", path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	if err := accept(path, file); err != nil {
		return nil, "", err
	}
	// A regular file has no deadline, and does not need one.
	_ = file.SetReadDeadline(time.Now().Add(pipePatience))
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	text, err = readAtMost(file, MaxConfig)
	switch {
	case ctx.Err() != nil:
		return nil, "", fmt.Errorf("reading the configuration %s: stopped: %w", path, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, "", fmt.Errorf("reading the configuration %s: no data from this pipe for %v; use a regular file", path, pipePatience)
	case err != nil:
		return nil, "", fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	dir, err = filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, "", fmt.Errorf("finding the directory of %s: %w", path, err)
	}
	return text, dir, nil
}
