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

// This file handles a store that the embedded server cannot write, as on a full disk. The server
// then disables the store permanently. Accepted messages are kept, so a new server over the same
// store continues when space is free again.

const (
	// repairEvery is the time between two checks for free space. It doubles, up to repairSeldom,
	// with each restart that fails.
	repairEvery  = time.Second
	repairSeldom = 30 * time.Second
	// repairSpace is the free space required for a restart, in bytes: a starting server writes
	// its state. Without this check, a server that fails at once would restart in a loop.
	repairSpace = 16 << 20
)

// storeFailure is the reason why the store is disabled, and the time.
type storeFailure struct {
	err   error
	since time.Time
}

// failsStore reports whether a line of the server's log reports a disabled store.
func failsStore(line string) bool {
	line = strings.ToLower(line)
	return strings.Contains(line, "critical write error") || strings.Contains(line, "no space left") || strings.Contains(line, "will be disabled")
}

// Err returns the reason why the server accepts no messages, such as a full disk; nil if
// it accepts them.
func (e *Server) Err() error {
	_, err := e.Failure()
	return err
}

// Failure returns when the server stopped accepting messages, and why; nil if it accepts
// them. It is safe for concurrent use.
func (e *Server) Failure() (since time.Time, why error) {
	if f := e.failure.Load(); f != nil {
		return f.since, f.err
	}
	return time.Time{}, nil
}

// writeFailed records that the store cannot be written, which the server reports only in its
// log, and starts repair.
func (e *Server) writeFailed(text string) {
	err := fmt.Errorf("the embedded server cannot write its store and takes no more messages: free space for %s, and it continues by itself; accepted messages are kept (%s)", e.dir, text)
	if e.ctx.Err() != nil || !e.failure.CompareAndSwap(nil, &storeFailure{err, time.Now()}) {
		return
	}
	e.log.Error("the embedded server's store is off", "dir", e.dir, "error", text)
	e.mending.Go(e.repair)
}

// repair waits until the store can be written, and restarts the server.
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

// writable writes as many bytes as a start needs to a file, and removes the file.
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
