package record

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	// writeEvery is the longest time until a lease is written, unless the disk is slow. A message
	// that is settled earlier is never written.
	writeEvery = 50 * time.Millisecond
	// retryFirst and retrySeldom bound the time between two attempts to write after one has failed.
	retryFirst  = time.Second
	retrySeldom = time.Minute
	// A file is replaced when it has minFile bytes, and growth times the bytes of its leases.
	minFile = 256 << 10
	growth  = 8
)

// file is what a writer needs of an *os.File.
type file interface {
	Write(b []byte) (int, error)
	Close() error
}

func createFile(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
}

// writer writes the changes of a table to a file. It replaces the file by a new one when that has
// grown, or could not be written.
type writer struct {
	table  *table
	path   string
	head   header
	create func(path string) (file, error)
	log    *slog.Logger

	stop, stopped chan struct{}

	// Used by the goroutine only.
	file     file // nil: none, or the last write has failed
	size     int  // of the file
	live     int  // of its leases, when it was created
	number   uint64
	failures int // of writes, in a row
}

// newWriter starts the goroutine.
func newWriter(t *table, path string, head header, create func(string) (file, error), log *slog.Logger) *writer {
	w := &writer{table: t, path: path, head: head, create: create, log: log, stop: make(chan struct{}), stopped: make(chan struct{})}
	go w.run()
	return w
}

// stopWriting ends the goroutine, and reports whether it has ended within the limit.
func (w *writer) stopWriting(limit time.Duration) bool {
	close(w.stop)
	wait := time.NewTimer(limit)
	defer wait.Stop()
	select {
	case <-w.stopped:
		return true
	case <-wait.C:
		w.log.Warn("the disk is too slow: the record of leases was not completed", "waited", limit)
		return false
	}
}

func (w *writer) run() {
	defer close(w.stopped)
	defer w.table.due.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		due, many := w.table.due.C, w.table.many
		if w.failures > 0 {
			due, many = again.C, nil
			again.Reset(min(retryFirst<<min(w.failures-1, 10), retrySeldom))
		}
		select {
		case <-due:
		case <-many:
		case <-w.stop:
			w.finish()
			return
		}
		w.report(w.write())
	}
}

// report counts and logs failures. After one there is no file, so that no lease in it is released
// later that has ended by then.
func (w *writer) report(err error) {
	if err == nil {
		if w.failures > 0 {
			w.log.Info("leases are recorded again")
		}
		w.failures = 0
		return
	}
	if w.failures++; w.failures == 1 {
		w.log.Warn("cannot record leases: if this daemon is killed now, its messages in flight wait until their leases expire", "error", err)
	}
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	_ = os.Remove(w.path)
	_ = os.Remove(w.path + ".new")
}

// write writes what has changed.
func (w *writer) write() error {
	if w.file == nil {
		return w.replace()
	}
	frame := beginFrame(nil)
	now, boot, err := bothClocks()
	if err != nil {
		return err
	}
	for _, s := range w.table.takeChanges() {
		frame = w.appendChanges(frame, s, now, boot)
	}
	switch {
	case len(frame) == frameHead:
		return nil
	case w.size+len(frame) > max(minFile, growth*w.live):
		return w.replace()
	}
	return w.append(finishFrame(frame, 0))
}

func (w *writer) append(b []byte) error {
	if _, err := w.file.Write(b); err != nil {
		return fmt.Errorf("writing %s: %w", w.path, err)
	}
	w.size += len(b)
	return nil
}

// appendChanges appends what has changed at a source.
func (w *writer) appendChanges(b []byte, s *Source, now time.Time, boot time.Duration) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = false
	for _, number := range s.gone {
		b = appendDrop(b, number)
	}
	s.gone = nil
	if s.number == 0 && s.fresh.n > 0 {
		w.number++
		s.number = w.number
		b = appendSource(b, s.number, s.key)
	}
	for e := range s.fresh.entries() {
		e.unlink()
		b = w.appendLease(b, s, e, now, boot)
	}
	return b
}

// appendLease appends a lease, which is in no list, and adds it to those in the file; s.mu is locked.
func (w *writer) appendLease(b []byte, s *Source, e *Entry, now time.Time, boot time.Duration) []byte {
	if e.number == 0 {
		w.number++
		e.number = w.number
	}
	e.inFile = true
	s.stored.push(e)
	return appendHold(b, e.number, s.number, boot+remaining(e.until, now), e.id, e.token)
}

// replace writes all leases to a new file.
func (w *writer) replace() error {
	now, boot, err := bothClocks()
	if err != nil {
		return err
	}
	w.table.takeChanges() // all is written
	text := appendHeader(nil, w.head)
	start := len(text)
	text = beginFrame(text)
	for _, s := range w.table.allSources() {
		text = w.appendAll(text, s, now, boot)
	}
	text = finishFrame(text, start)
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	next, err := w.create(w.path + ".new")
	if err != nil {
		return fmt.Errorf("making the record of leases: %w", err)
	}
	w.file, w.size, w.live = next, 0, len(text)
	if err := w.append(text); err != nil {
		return err
	}
	if err := os.Rename(w.path+".new", w.path); err != nil {
		return fmt.Errorf("replacing the record of leases: %w", err)
	}
	return nil
}

// appendAll appends all leases of a source, and drops those that have expired.
func (w *writer) appendAll(b []byte, s *Source, now time.Time, boot time.Duration) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty, s.gone, s.number = false, nil, 0
	if s.fresh.n+s.stored.n == 0 {
		return b
	}
	w.number++
	s.number = w.number
	b = appendSource(b, s.number, s.key)
	for e := range s.fresh.entries() {
		e.unlink()
		s.stored.push(e)
	}
	last := s.stored.head.prev // what is appended below goes behind it
	for e := range s.stored.entries() {
		e.unlink()
		if remaining(e.until, now) <= 0 {
			e.number, e.inFile = 0, false
			w.table.release()
		} else {
			b = w.appendLease(b, s, e, now, boot)
		}
		if e == last {
			break
		}
	}
	return b
}

// finish writes the leases that are still held, or removes the file if there are none.
func (w *writer) finish() {
	var err error
	if w.table.count.Load() > 0 {
		err = w.replace()
	} else if err = os.Remove(w.path); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	if err != nil {
		w.log.Debug("cannot complete the record of leases", "error", err)
	}
}

// bothClocks returns the time, and the time since the boot.
func bothClocks() (now time.Time, boot time.Duration, err error) {
	boot, err = sinceBoot()
	return time.Now(), boot, err
}
