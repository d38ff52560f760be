package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the names of claimed directories.
const prefix = "drover-"

// claimLimit bounds the wait for other claims.
const claimLimit = 5 * time.Second

// passable is the mode of a directory that other users may traverse, but not list.
const passable = 0o711

// claim is a directory that belongs to a running daemon, which holds a lock on it until it ends in
// any way. The next claim removes directories that are not locked.
type claim struct {
	dir  string
	lock *os.File
}

// newClaim creates a directory below parent. It locks the directory while parent is locked, so
// that no other daemon removes it as a leftover.
func newClaim(parent string, remove func(dir string) error) (*claim, error) {
	guard, err := lockDir(parent, claimLimit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = guard.Close() }()
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if dir := filepath.Join(parent, e.Name()); e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			if lock, err := lockDir(dir, 0); err == nil {
				// A directory that cannot be removed is harmless; the next claim tries again.
				_ = remove(dir)
				_ = lock.Close()
			}
		}
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir, 0)
	if err != nil {
		return nil, errors.Join(err, remove(dir))
	}
	return &claim{dir, lock}, nil
}

// release removes the directory.
func (c *claim) release(remove func(dir string) error) error {
	return errors.Join(remove(c.dir), c.lock.Close())
}

// lockDir locks a directory until the file is closed. It waits up to limit for the lock.
func lockDir(dir string, limit time.Duration) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK) || !time.Now().Before(deadline):
			return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), file.Close())
		}
	}
}

// claimTemporary claims a directory that all users can reach. Its parent is writable only by the
// daemon's user.
func claimTemporary() (*claim, error) {
	parent := filepath.Join(os.TempDir(), prefix+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(parent, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making a directory for workers: %w", err)
	}
	// In a world-writable directory, another user may have created it.
	var info unix.Stat_t
	if err := unix.Lstat(parent, &info); err != nil {
		return nil, fmt.Errorf("making a directory for workers: %w", err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR || info.Uid != uint32(os.Geteuid()) {
		return nil, fmt.Errorf("%s is not this user's directory; remove it, or set TMPDIR to another place", parent)
	}
	if err := os.Chmod(parent, passable); err != nil {
		return nil, fmt.Errorf("making a directory for workers: %w", err)
	}
	c, err := newClaim(parent, os.RemoveAll)
	if err != nil {
		return nil, fmt.Errorf("making a directory for workers: %w", err)
	}
	if err := os.Chmod(c.dir, passable); err != nil {
		return nil, errors.Join(fmt.Errorf("making a directory for workers: %w", err), c.release(os.RemoveAll))
	}
	return c, nil
}
