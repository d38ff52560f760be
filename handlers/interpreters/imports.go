package interpreters

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Bounds of the imports of an app that are recorded: their number, and the bytes of their paths.
// Beyond them, every file of the app counts as imported. A worker reports at most maxPaths.
const (
	maxPaths     = 20_000
	maxPathBytes = 4 << 20
)

// Imports records the imports of an app's workers: paths of files, of directories whose files
// all count, and, without an ending, of modules that were not found. Its
// methods may be called from many goroutines.
type Imports struct {
	dir string // of the app

	mu       sync.Mutex
	reported bool // whether a worker has named any
	paths    map[string]bool
	bytes    int
}

func (i *Imports) isFull() bool { return len(i.paths) > maxPaths || i.bytes > maxPathBytes }

// NewImports returns the empty imports of an app that has not started.
func NewImports(dir string) *Imports { return &Imports{dir: dir, paths: make(map[string]bool)} }

// Add adds paths that workers report. Each is kept unchanged; a path in the app's
// directory also by its name there, and with its links resolved now.
func (i *Imports) Add(paths []string) {
	real, err := filepath.EvalSymlinks(i.dir)
	if err != nil {
		real = i.dir
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reported = true
	for _, path := range paths {
		if i.paths[path] || i.isFull() {
			continue
		}
		i.paths[path] = true
		i.bytes += len(path)
		for _, dir := range []string{i.dir, real} {
			if name, err := filepath.Rel(dir, path); err == nil && name != ".." && !strings.HasPrefix(name, "../") {
				i.paths[withoutData(name)] = true
				if target, err := filepath.EvalSymlinks(path); err == nil {
					i.paths[target] = true
				}
			}
		}
	}
}

// withoutData removes the directory of a ConfigMap's files from a name. That directory's name
// begins with two dots, and changes at each update.
func withoutData(name string) string {
	parts := strings.Split(name, string(filepath.Separator))
	return filepath.Join(slices.DeleteFunc(parts, func(part string) bool { return strings.HasPrefix(part, "..") })...)
}

// includes reports whether a file was imported, by its name or its path.
func (i *Imports) includes(name, path string) bool {
	for _, at := range []string{name, path} {
		if at == "" {
			continue // it does not exist
		}
		if i.paths[at] || i.paths[strings.TrimSuffix(at, filepath.Ext(at))] {
			return true
		}
		for dir := filepath.Dir(at); ; dir = filepath.Dir(dir) {
			if i.paths[dir] {
				return true
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return false
}

// ChangesSince returns the files that differ from an earlier state of the code. changed are files
// that workers have imported, that replace an imported file, or that always count; unused are the
// others. If the imports are unknown, all are changed.
func (c *Code) ChangesSince(before *Code, imports *Imports) (changed, unused []string) {
	imports.mu.Lock()
	defer imports.mu.Unlock()
	names := maps.Clone(before.files)
	maps.Copy(names, c.files)
	counts := c.changeFilter(before, imports)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch {
		case before.files[name].contents == c.files[name].contents:
		case counts(name):
			changed = append(changed, name)
		default:
			unused = append(unused, name)
		}
	}
	if before.packages != c.packages {
		changed = append(changed, "installed packages")
	}
	return changed, unused
}

// changeFilter returns a function that reports whether a change of a file changes the code.
// imports is locked.
func (c *Code) changeFilter(before *Code, imports *Imports) func(name string) bool {
	stems, endings, known := make(map[string]bool), make(map[string]bool), false
	for name, was := range before.files {
		if imports.includes(name, was.path) {
			known, stems[importStem(name)], endings[filepath.Ext(name)] = true, true, true
		}
	}
	return func(name string) bool {
		was, old := before.files[name]
		ending := filepath.Ext(name)
		switch {
		case !imports.reported, !known, imports.isFull(), slices.Contains(c.kinds.Always, ending):
			return true
		case c.kinds.Imported == nil && !endings[ending]: // no code, as far as anybody knows
			return true
		case old && imports.includes(name, was.path), imports.includes(name, c.files[name].path):
			return true
		}
		return !old && stems[importStem(name)]
	}
}

// importStem is the name by which an import finds a file: x.py and x/__init__.py, or x.js and
// x/index.mjs, can replace each other.
func importStem(name string) string {
	name = strings.TrimSuffix(name, filepath.Ext(name))
	for _, whole := range []string{"__init__", "index"} {
		name = strings.TrimSuffix(name, string(filepath.Separator)+whole)
	}
	return name
}
