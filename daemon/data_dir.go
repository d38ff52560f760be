package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// explainDataDir adds the data directory to a StartError if it cannot be written. Volumes of
// another user, and read-only ones, are common in containers.
func explainDataDir(err error, dir string) error {
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if checkWritable(dir) == nil {
		return err
	}
	return &StartError{fmt.Errorf("%w; user %d needs to write to data_dir, %s: let it, or name another directory", err, os.Getuid(), dir)}
}

// checkWritable returns why nothing can be written to a directory; nil if it can.
func checkWritable(dir string) error {
	file, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return err
	}
	_, err = file.Write([]byte("x"))
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}
