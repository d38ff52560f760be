package runtimes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// What of an app is read for its fingerprint. Of files beyond maxBytes only the size and
// the time count; what is beyond the others does not count.
const (
	maxFiles = 20_000
	maxDepth = 64
	maxBytes = 256 << 20
)

// Fingerprint tells one state of an app's code from another, by the names and contents
// of the files below dir that isCode, by their name. Links are followed, each directory
// once: a release is often switched by one, and a ConfigMap always. Hidden directories,
// such as .venv, and those of other languages' packages are passed over; of installed
// Python packages the names and versions count. What cannot be read is as if it did not
// exist: it cannot be imported either.
func Fingerprint(dir string, isCode func(name string) bool) string {
	w := walk{hash: sha256.New(), isCode: isCode, seen: make(map[place]bool)}
	w.dir(dir, "", 0)
	for _, pattern := range []string{".python_packages/lib/site-packages", ".venv/lib/python*/site-packages"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern, "*.dist-info")) // the patterns are ours
		for _, path := range found {
			w.note("%s", strings.TrimPrefix(path, dir))
		}
	}
	return hex.EncodeToString(w.hash.Sum(nil))
}

// place is a directory, by whatever name.
type place struct{ device, inode uint64 }

// walk is one way through an app's directory.
type walk struct {
	hash   hash.Hash
	isCode func(name string) bool
	seen   map[place]bool // the directories that it was in
	files  int
	bytes  int64
}

// note takes a line into the fingerprint; a hash takes everything.
func (w *walk) note(format string, args ...any) { _, _ = fmt.Fprintf(w.hash, format+"\n", args...) }

// dir takes a directory, which is at name below the app's.
func (w *walk) dir(path, name string, depth int) {
	info, err := os.Stat(path)
	if err != nil || depth > maxDepth {
		return
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		here := place{uint64(stat.Dev), stat.Ino} //nolint:unconvert // its type differs from system to system
		if w.seen[here] {
			return
		}
		w.seen[here] = true
	}
	entries, err := os.ReadDir(path) // in order
	if err != nil {
		return
	}
	for _, entry := range entries {
		full, below := filepath.Join(path, entry.Name()), filepath.Join(name, entry.Name())
		info, err := os.Stat(full)
		switch {
		case err != nil:
		case info.IsDir():
			if n := entry.Name(); !strings.HasPrefix(n, ".") && n != "__pycache__" && n != "node_modules" {
				w.dir(full, below, depth+1)
			}
		case info.Mode().IsRegular() && w.isCode(entry.Name()) && w.files < maxFiles:
			w.files++
			w.file(full, below, info)
		}
	}
}

func (w *walk) file(path, name string, info os.FileInfo) {
	if w.bytes += info.Size(); w.bytes > maxBytes {
		w.note("%s %d %d", name, info.Size(), info.ModTime().UnixNano())
		return
	}
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }() // it was only read
	own := sha256.New()
	if n, err := io.Copy(own, io.LimitReader(file, info.Size()+1)); err == nil {
		w.note("%s %d %x", name, n, own.Sum(nil))
	}
}
