package interpreters

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Bounds of an app's fingerprint. For files beyond maxBytes only the size and the time count; files
// beyond the other bounds do not count.
const (
	maxFiles = 20_000
	maxDepth = 64
	maxBytes = 256 << 20
)

// Kinds are the files that an app's code consists of, by the ending of their names.
type Kinds struct {
	// Imported files count if a worker has imported them; nil: all files.
	Imported []string
	// Always are files that code also reads in other ways. They always count.
	Always []string
}

func (k Kinds) includesName(name string) bool {
	return k.Imported == nil || slices.Contains(k.Imported, filepath.Ext(name)) || slices.Contains(k.Always, filepath.Ext(name))
}

// Code is one state of an app's code.
type Code struct {
	kinds    Kinds
	files    map[string]file // by their name below the app's directory
	packages string          // that are installed
	sum      string
}

type file struct {
	path     string // without links
	contents string // by their hash
}

// Stamp identifies one state of a file without reading it.
type Stamp struct {
	id             fileID
	size, modified int64
}

// ReadStamps returns the stamps of the files that ReadCode reads, by their names below dir. It reads
// no contents, so it can run several times a second.
func ReadStamps(dir string, kinds Kinds) map[string]Stamp {
	w := walk{kinds: kinds, seen: make(map[fileID]bool), stamps: make(map[string]Stamp)}
	w.addDir(dir, "", 0)
	return w.stamps
}

// StampOf returns the stamp of a file; zero if it does not exist.
func StampOf(path string) Stamp {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}
	}
	return newStamp(info)
}

func newStamp(info os.FileInfo) Stamp {
	return Stamp{idOf(info), info.Size(), info.ModTime().UnixNano()}
}

// ReadCode reads the names and contents of the files below dir that are of these kinds. Links
// are followed, each directory once: a release is often switched by one, and a ConfigMap
// always. Hidden directories, such as .venv, and those of other languages' packages are
// skipped; of installed Python packages the names and versions count. Files that cannot be
// read count as missing: they cannot be imported either.
func ReadCode(dir string, kinds Kinds) *Code {
	w := walk{hash: sha256.New(), kinds: kinds, found: make(map[string]file), seen: make(map[fileID]bool)}
	w.addDir(dir, "", 0)
	var packages strings.Builder
	for _, pattern := range []string{".python_packages/lib/site-packages", ".venv/lib/python*/site-packages", "venv/lib/python*/site-packages"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern, "*.dist-info")) // the patterns are drover's, and valid
		for _, path := range found {
			packages.WriteString(strings.TrimPrefix(path, dir) + "\n")
		}
	}
	_, _ = io.WriteString(w.hash, packages.String()) // a hash takes everything
	return &Code{kinds: kinds, files: w.found, packages: packages.String(), sum: hex.EncodeToString(w.hash.Sum(nil))}
}

// Fingerprint identifies this state of the code: it differs if a file does.
func (c *Code) Fingerprint() string { return c.sum }

// fileID identifies a directory, by any of its names.
type fileID struct{ device, inode uint64 }

// idOf returns the ID of a file; zero on systems without one.
func idOf(info os.FileInfo) fileID {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(stat.Dev), stat.Ino} //nolint:unconvert // its type differs from system to system
	}
	return fileID{}
}

// walk is one pass over an app's directory.
type walk struct {
	stamps map[string]Stamp // if not nil, stamps are read instead of contents
	hash   hash.Hash
	kinds  Kinds
	found  map[string]file
	seen   map[fileID]bool // the directories that it was in
	files  int
	bytes  int64
}

// addDir adds a directory; name is its path below the app's.
func (w *walk) addDir(path, name string, depth int) {
	info, err := os.Stat(path)
	if err != nil || depth > maxDepth {
		return
	}
	if here := idOf(info); here != (fileID{}) {
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
				w.addDir(full, below, depth+1)
			}
		case info.Mode().IsRegular() && w.kinds.includesName(entry.Name()) && w.files < maxFiles:
			w.files++
			if w.stamps != nil {
				w.stamps[below] = newStamp(info)
				continue
			}
			w.addFile(full, below, info)
		}
	}
}

func (w *walk) addFile(path, name string, info os.FileInfo) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return
	}
	if w.bytes += info.Size(); w.bytes > maxBytes {
		w.addEntry(name, real, fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano()))
		return
	}
	in, err := os.Open(real)
	if err != nil {
		return
	}
	defer func() { _ = in.Close() }() // it was only read
	own := sha256.New()
	if n, err := io.Copy(own, io.LimitReader(in, info.Size()+1)); err == nil {
		w.addEntry(name, real, fmt.Sprintf("%d %x", n, own.Sum(nil)))
	}
}

func (w *walk) addEntry(name, path, contents string) {
	_, _ = fmt.Fprintf(w.hash, "%s %s\n", name, contents) // a hash takes everything
	w.found[name] = file{path, contents}
}
