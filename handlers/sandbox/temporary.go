package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// This file bounds the size of workers' temporary directories. No file system allows a size limit
// without privileges, so the directories are measured.

// leastFile is the minimum size that a file counts, in bytes: many empty files use space, too.
const leastFile = 4096

// inode identifies a file, which may have several names or none.
type inode struct{ device, number uint64 }

// TemporaryLimit returns the limit of a worker's temporary directory, in bytes; 0 if there is none.
func (b *Box) TemporaryLimit() int64 {
	if b.tmp == "" {
		return 0
	}
	return b.confinement.settings.Temporary
}

// TemporaryDir returns the path at which a worker forked from a template creates its temporary
// directory; empty if it has none of its own.
func (b *Box) TemporaryDir() string { return b.tmp }

// MeasureDisk returns the bytes that the worker's temporary directory uses on disk, including
// deleted files that are still open. With many files it takes long. It returns an error if the
// directory contains something that cannot be measured.
func (b *Box) MeasureDisk() (used int64, err error) {
	c := b.confinement
	found := make(map[inode]bool)
	err = filepath.WalkDir(b.tmp, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && path != b.tmp && c.isTemporary(path) {
			return filepath.SkipDir // another worker's
		}
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was just removed
		}
		if err != nil {
			return err
		}
		size, id := diskSize(info)
		if !found[id] {
			used += max(size, leastFile)
		}
		if id != (inode{}) && !entry.IsDir() {
			found[id] = true
		}
		return nil
	})
	if of := (*fs.PathError)(nil); errors.As(err, &of) {
		err = of.Err // the path may be long
	}
	return used + c.deleted.sizeIn(c, b.tmp), err
}

// isTemporary reports whether a directory belongs to a running worker.
func (c *Confinement) isTemporary(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.temporary[path]
}

// inUse reports whether a directory belongs to a running worker or contains such a directory; mu is
// held.
func (c *Confinement) inUse(dir string) bool {
	for path := range c.temporary {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

// removeTemporary removes a worker's directory. If it contains directories of running workers
// that were forked from that worker, it is removed with the last of them.
func (c *Confinement) removeTemporary(dir string) error {
	c.mu.Lock()
	delete(c.temporary, dir)
	remove := []string{dir}
	if parent := filepath.Dir(dir); parent != c.claim.dir && !c.inUse(parent) {
		remove = []string{parent}
	} else if c.inUse(dir) {
		remove = nil
		entries, _ := os.ReadDir(dir) // unreadable entries are removed later
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); !c.inUse(path) {
				remove = append(remove, path)
			}
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, path := range remove {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// measureEvery is the minimum interval between scans of open files, for all workers of an app
// together.
const measureEvery = 500 * time.Millisecond

// deleted are the sizes of workers' open files without a name.
type deleted struct {
	mu         sync.Mutex
	measuredAt time.Time
	sizes      map[string]int64 // by directory
}

func (d *deleted) sizeIn(c *Confinement, dir string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.measuredAt) > measureEvery {
		d.sizes = openDeleted(c.claim.dir+"/", c.isTemporary)
		d.measuredAt = time.Now()
	}
	return d.sizes[dir]
}
