package timer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// Directory is a Store in a directory, for the instances of one machine. The lease is a lock of the
// operating system, which ends with the process.
type Directory struct {
	path string // of the state; the lock has a suffix
	log  *slog.Logger
}

const (
	directoryMode = 0o700
	stateMode     = 0o600
	lockSuffix    = ".lock"
)

// NewDirectory returns the store of a timer, and makes the directory if it is missing. name must be
// the name of a file.
func NewDirectory(dir, name string, log *slog.Logger) (*Directory, error) {
	if err := os.MkdirAll(dir, directoryMode); err != nil {
		return nil, fmt.Errorf("making the directory of timers: %w", err)
	}
	return &Directory{filepath.Join(dir, name+".json"), log}, nil
}

// LeaseTerm implements Store.
func (*Directory) LeaseTerm() time.Duration { return 0 }

// ReadState implements Store.
func (d *Directory) ReadState(context.Context) (s State, leased bool, err error) {
	if s, err = d.load(); err != nil || time.Since(s.NextDue()) < onTime {
		return s, false, err // a probe of the lock would disturb an instance that acquires it now
	}
	lock := flock.New(d.path+lockSuffix, flock.SetPermissions(stateMode))
	free, err := lock.TryRLock()
	return s, !free, errors.Join(err, lock.Close())
}

// AcquireLease implements Store.
func (d *Directory) AcquireLease(_ context.Context, isDue func(State) bool) (State, Lease, error) {
	s, err := d.load()
	if err != nil || !isDue(s) {
		return s, nil, err
	}
	lock := flock.New(d.path+lockSuffix, flock.SetPermissions(stateMode))
	free, err := lock.TryLock()
	if err != nil || !free {
		if err == nil {
			err = ErrLeased
		}
		return s, nil, errors.Join(err, lock.Close())
	}
	// Another instance may have run it meanwhile.
	if s, err = d.load(); err != nil || !isDue(s) {
		return s, nil, errors.Join(err, lock.Close())
	}
	return s, &directoryLease{d, lock}, nil
}

// load reads the state. A damaged file counts as none.
func (d *Directory) load() (s State, err error) {
	text, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("reading the state of the timer: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		d.log.Warn("the state of the timer is damaged; an occurrence that was missed is not made up for", "file", d.path, "error", err)
		return State{}, nil
	}
	return s, nil
}

// directoryLease is a lock that is held.
type directoryLease struct {
	d    *Directory
	lock *flock.Flock
}

// RenewLease implements Lease. A lock does not expire.
func (*directoryLease) RenewLease(context.Context) error { return nil }

// EndLease implements Lease.
func (l *directoryLease) EndLease(_ context.Context, s State) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = replaceFile(l.d.path, text)
	}
	if err != nil {
		return fmt.Errorf("writing the state of the timer: %w", err)
	}
	return l.lock.Close()
}

// replaceFile writes a file so that it has either the old or the new text, also after a power cut.
func replaceFile(path string, text []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, stateMode)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
