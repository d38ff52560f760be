// Package record keeps the leases of a daemon in a file, so that the daemon can release them when it
// starts again after it was killed. Without the record, the messages in flight wait until their
// leases expire, although nobody else can have them.
//
// A daemon opens one Record over its data directory, and closes it after its triggers. A trigger
// gets a Source for what it receives from. It calls Hold for each lease that it takes or renews,
// Drop for each that has ended, and at its start Left for those of the daemon that was killed.
//
// The record is best effort, and costs a message no time. Hold and Drop only change memory. A
// goroutine appends the changes to the file, many at a time and without a sync: a file survives the
// death of its writer. So a lease that was taken in the last moment may be missing, and its message
// waits for the lease to expire. If the disk is slow or full, leases are missing, and messages
// are handled as ever.
//
// A lease is released only if it cannot be the lease of a living daemon:
//
//   - The directory is locked while a daemon uses it, and the kernel unlocks it when the daemon dies.
//   - The file names the boot of the machine, and the device and inode of the lock file. So it is
//     ignored on another machine, after a reboot, and in a copy of the directory.
//   - Each lease has the time until which the source gives its message to nobody else, by a clock
//     that counts from the boot and continues during a suspend. An expired lease is ignored.
//
// A message that kills the daemon would kill it again at once. So if the daemon dies soon after
// its start several times in a row, leases are no longer released.
package record

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	// soon is how long after its start a daemon dies if a message kills it. After maxDeaths such
	// deaths in a row, leases are not released.
	soon      = 5 * time.Second
	maxDeaths = 3
	// closeLimit bounds the wait for a slow disk at the end.
	closeLimit = 2 * time.Second
)

// ErrInUse is returned if another daemon records its leases in the directory.
var ErrInUse = errors.New("another daemon uses this data directory")

// Record is the record of one daemon. It is safe for concurrent use. A nil Record, and its nil
// Sources, record nothing.
type Record struct {
	lock  *flock.Flock
	table *table
	*writer
}

// Open opens the record in a directory of its own, which it creates, and locks it. The error wraps
// ErrInUse if another process has it, and errors.ErrUnsupported if the system has no boot ID.
func Open(dir string, log *slog.Logger) (*Record, error) {
	return open(dir, log, createFile)
}

func open(dir string, log *slog.Logger, create func(path string) (file, error)) (*Record, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory for the record of leases: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the record of leases: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("the record of leases, %s: %w; give each a data_dir of its own", dir, ErrInUse)
	}
	head := header{}
	var now time.Duration
	if head.Place, err = identify(lock.Path()); err == nil {
		now, err = sinceBoot()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the record of leases: %w", err), lock.Close())
	}
	head.Opened = now
	path := filepath.Join(dir, "leases")
	r := &Record{lock: lock, table: newTable()}
	if err := r.readLeft(path, &head, log); err != nil {
		log.Warn("cannot read the leases of the last run; their messages are redelivered when they expire", "error", err)
	}
	r.writer = newWriter(r.table, path, head, create, log)
	return r, nil
}

// readLeft reads what the last daemon left, and sets how many have died soon after their start.
func (r *Record) readLeft(path string, head *header, log *slog.Logger) error {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the last daemon was stopped, and released its leases
	}
	if err != nil {
		return err
	}
	found, err := decode(text)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case found.head.Place != head.Place:
		log.Info("ignored the leases of the last run: they belong to another machine, boot or data directory")
		return nil
	case found.head.Opened > head.Opened:
		return fmt.Errorf("%s is from the future", path)
	}
	if head.Opened-found.head.Opened < soon && len(found.leases) > 0 {
		head.Deaths = found.head.Deaths + 1
	}
	if head.Deaths > maxDeaths {
		log.Warn("the daemon died soon after its start several times; a message may be the cause. The messages that it held are redelivered when their leases expire", "deaths", head.Deaths)
		return nil
	}
	r.table.restore(found.leases, head.Opened)
	return nil
}

// Source returns the Source with a key, which identifies where messages come from: the address of
// a queue, or the names of a stream and a consumer and when they were created.
func (r *Record) Source(key string) *Source {
	if r == nil {
		return nil
	}
	return r.table.source(key)
}

// Close writes the leases that are still held, if any, for the next daemon, and unlocks the
// directory. Triggers are closed before.
func (r *Record) Close() error {
	if r == nil {
		return nil
	}
	if !r.stopWriting(closeLimit) {
		return nil // the directory stays locked until the process has ended
	}
	return r.lock.Close()
}

// identify returns the boot of this machine and the identity of a file, which no other file has.
func identify(path string) (string, error) {
	boot, err := bootID()
	if err != nil {
		return "", err
	}
	id, err := fileID(path)
	if err != nil {
		return "", err
	}
	return boot + " " + id, nil
}
