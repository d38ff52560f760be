package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// aboutDataDir adds to a StartError where the data directory is at fault: that a volume is
// somebody else's, or read-only, is the first thing to go wrong in a container.
func (d *Daemon) aboutDataDir(err error) error {
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if writable(d.cfg.DataDir) == nil {
		return err
	}
	return &StartError{fmt.Errorf("%w; user %d needs to write to data_dir, %s: let it, or name another directory", err, os.Getuid(), d.cfg.DataDir)}
}

// writable returns why nothing can be written to a directory.
func writable(dir string) error {
	file, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return err
	}
	_, err = file.Write([]byte("x"))
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}
