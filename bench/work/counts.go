package work

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The words of a file of counters, of eight bytes each. work.py has the same layout.
const (
	startedWord = iota
	endedWord
	ownCallsWord
	latenciesWord
	ringWord
	ringSize = 4096
)

// Counts are the counters of all processes that run functions.
type Counts struct {
	Started, Ended uint64
	OwnCalls       uint64            // system calls that the work itself made
	latencies      map[string]uint64 // by file: how many were written
}

// ReadCounts adds the counters up that are in a directory.
func ReadCounts(dir string) (Counts, error) {
	all := Counts{latencies: make(map[string]uint64)}
	err := eachCounters(dir, func(name string, file *os.File) error {
		var text [8 * ringWord]byte
		if _, err := file.ReadAt(text[:], 0); err != nil {
			return err
		}
		word := func(i int) uint64 { return binary.NativeEndian.Uint64(text[8*i:]) }
		all.Started += word(startedWord)
		all.Ended += word(endedWord)
		all.OwnCalls += word(ownCallsWord)
		all.latencies[name] = word(latenciesWord)
		return nil
	})
	return all, err
}

// ReadLatencies returns the latencies that were written after from was read. Those of a process
// that wrote more than a ring of them are an error.
func ReadLatencies(dir string, from Counts) (all []time.Duration, err error) {
	err = eachCounters(dir, func(name string, file *os.File) error {
		text := make([]byte, 8*(ringWord+ringSize))
		if _, err := file.ReadAt(text, 0); err != nil {
			return err
		}
		last := binary.NativeEndian.Uint64(text[8*latenciesWord:])
		if last-from.latencies[name] > ringSize {
			return fmt.Errorf("a process wrote %d latencies, and only the last %d are kept: measure for a shorter time", last-from.latencies[name], ringSize)
		}
		for n := from.latencies[name] + 1; n <= last; n++ {
			all = append(all, time.Duration(binary.NativeEndian.Uint64(text[8*(ringWord+n%ringSize):])))
		}
		return nil
	})
	return all, err
}

// eachCounters opens each file of counters; one that has no contents yet is left out.
func eachCounters(dir string, read func(name string, file *os.File) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		file, err := os.Open(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil && info.Size() > 0 {
			err = read(entry.Name(), file)
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("reading the counters %s: %w", entry.Name(), err)
		}
	}
	return nil
}

// counters belong to this process.
type counters []atomic.Uint64

func openCounters(dir string) (counters, error) {
	file, err := os.Create(filepath.Join(dir, strconv.Itoa(os.Getpid())))
	if err != nil {
		return nil, err
	}
	const size = 8 * (ringWord + ringSize)
	if err := file.Truncate(size); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&memory[0])), ringWord+ringSize), nil
}

func (c counters) latency(d time.Duration) {
	n := c[latenciesWord].Load() + 1
	c[ringWord+n%ringSize].Store(uint64(max(d, 0)))
	c[latenciesWord].Store(n)
}
