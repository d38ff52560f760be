package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// This file is what happens when the embedded server cannot write its store, as on a
// full disk. The server then switches the store off for good. What it accepted is
// kept, so a new server over the same store continues, once there is space again.

const (
	// repairEvery is the time between two looks for space; it doubles with each restart
	// that did not help, up to repairSeldom.
	repairEvery  = time.Second
	repairSeldom = 30 * time.Second
	// repairSpace is what must be free to begin again, in bytes: a server that starts
	// writes its state, and one that fails at once would only start over and over.
	repairSpace = 16 << 20
)

// storeFailure is why the store is off, and since when.
type storeFailure struct {
	err   error
	since time.Time
}

// failsStore reports whether a line of the server's log says that its store is off.
func failsStore(line string) bool {
	line = strings.ToLower(line)
	return strings.Contains(line, "critical write error") || strings.Contains(line, "no space left") || strings.Contains(line, "will be disabled")
}

// Err returns why the server takes no more messages, such as a full disk; nil while
// all is well.
func (e *Server) Err() error {
	_, err := e.Failure()
	return err
}

// Failure returns since when the server takes no more messages, and why; nil while all
// is well. It is safe for use by many goroutines.
func (e *Server) Failure() (since time.Time, why error) {
	if f := e.failure.Load(); f != nil {
		return f.since, f.err
	}
	return time.Time{}, nil
}

// writeFailed notes that the store cannot be written, which the server says in its log
// alone, and has the server be restarted when it can.
func (e *Server) writeFailed(text string) {
	err := fmt.Errorf("the embedded server cannot write its store and takes no more messages: free space for %s, and it continues by itself; accepted messages are kept (%s)", e.dir, text)
	if e.ctx.Err() != nil || !e.failure.CompareAndSwap(nil, &storeFailure{err, time.Now()}) {
		return
	}
	e.log.Error("the embedded server's store is off", "dir", e.dir, "error", text)
	e.mending.Go(e.repair)
}

// repair restarts the server when its store can be written again.
func (e *Server) repair() {
	pause := repairEvery
	for {
		sleep := time.NewTimer(pause)
		select {
		case <-sleep.C:
		case <-e.ctx.Done():
			sleep.Stop()
			return
		}
		if err := e.writable(); err != nil {
			e.log.Debug("the embedded server's store still cannot be written", "error", err)
			continue
		}
		before := e.server.Load()
		before.Shutdown()
		before.WaitForShutdown()
		failed := e.failure.Load()
		if err := e.start(e.ctx); err != nil {
			e.log.Error("the embedded server cannot be started again; will try again", "error", err)
			pause = min(2*pause, repairSeldom)
			continue
		}
		e.failure.CompareAndSwap(failed, nil)
		e.log.Info("the embedded server's store works again", "off_for", time.Since(failed.since).Round(time.Second))
		return
	}
}

// writable tries to write as much as a start needs, and takes it away again.
func (e *Server) writable() (err error) {
	name := filepath.Join(e.dir, "space")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if removed := os.Remove(name); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}()
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, 1<<20)
	for range repairSpace / len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}
