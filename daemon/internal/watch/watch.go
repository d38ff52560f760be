// Package watch detects that the files of a configuration were saved: the configuration itself, its
// environment files, and the code of its apps. drover run --watch calls it, from one goroutine.
//
// It compares the times and sizes of files several times a second. Unlike the operating system's
// notifications, this also works on network and virtual machine volumes, and for files that an editor or
// a release replaces by renaming a file, a directory or a link.
package watch

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/values"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers/interpreters"
)

const (
	// every is the minimum time between two scans of the files.
	every = 50 * time.Millisecond
	// share bounds the CPU time of scans: the time between two scans is at least share times the
	// duration of one.
	share = 20
	// quiet is the time without changes after which a save is complete. Editors, formatters and checkouts
	// that save several files take less time between two of them.
	quiet = 50 * time.Millisecond
	// maxSettle bounds the wait for a save to complete.
	maxSettle = 2 * time.Second
)

// appFiles are the files of a function app besides its code: host.json, local.settings.json,
// function.json of each function and drover.yaml.
var appFiles = interpreters.Kinds{Imported: []string{".py"}, Always: []string{".json", ".yaml", ".yml"}}

// root is a file or a directory that is watched.
type root struct {
	path   string
	isFile bool
	kinds  interpreters.Kinds // of the files in a directory
}

func (r root) equals(o root) bool {
	return r.path == o.path && r.isFile == o.isFile && slices.Equal(r.kinds.Imported, o.kinds.Imported) && slices.Equal(r.kinds.Always, o.kinds.Always)
}

// readStamps returns the stamps of a root's files, by their paths.
func (r root) readStamps() map[string]interpreters.Stamp {
	if r.isFile {
		return map[string]interpreters.Stamp{r.path: interpreters.StampOf(r.path)}
	}
	out := make(map[string]interpreters.Stamp)
	for name, stamp := range interpreters.ReadStamps(r.path, r.kinds) {
		out[filepath.Join(r.path, name)] = stamp
	}
	return out
}

// Watcher watches the files of one configuration.
type Watcher struct {
	path  string // of the configuration
	roots []root
	seen  []map[string]interpreters.Stamp // of each root's files
}

// New returns a Watcher of the configuration at a path: a file, or a directory with a configuration or a
// function app. It reports saves from now on.
func New(path string) *Watcher {
	w := &Watcher{path: path}
	w.Follow(nil)
	return w
}

// Follow makes the Watcher watch the apps of a configuration; nil: none. For files that it already
// watched, it reports saves since the last call of Next, for new files from now on.
func (w *Watcher) Follow(cfg *configs.Config) {
	before, stamps := w.roots, w.seen
	w.roots, w.seen = rootsOf(w.path, cfg), nil
	for _, r := range w.roots {
		if at := slices.IndexFunc(before, r.equals); at >= 0 {
			w.seen = append(w.seen, stamps[at])
			continue
		}
		w.seen = append(w.seen, r.readStamps())
	}
}

func rootsOf(path string, cfg *configs.Config) (roots []root) {
	if dir, found := functionapp.Find(path); found {
		roots = []root{{path: dir, kinds: appFiles}}
	} else {
		file := path
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			file = filepath.Join(path, "drover.yaml")
		}
		roots = []root{{path: file, isFile: true}}
		for _, name := range envFilesOf(file) {
			roots = append(roots, root{path: name, isFile: true})
		}
	}
	if cfg == nil {
		return roots
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Apps)) {
		if app := cfg.Apps[name]; app.Language != "" {
			roots = append(roots, root{path: app.Dir, kinds: apps.RuntimeOf(app.Language).Kinds})
		}
	}
	return roots
}

// envFilesOf returns the paths of the environment files that a configuration names. They need not exist,
// and the rest of the configuration need not be right: a save of one may be what makes the
// configuration load.
func envFilesOf(path string) (names []string) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil // not a pipe, because the daemon would miss the data that is read here
	}
	text, dir, err := readfile.Config(context.Background(), path, func(string, *os.File) error { return nil })
	if err != nil {
		return nil
	}
	var keys struct {
		EnvFile values.EnvFiles `yaml:"env_file"`
	}
	source := problems.New(path, text, dir, func(string) (string, bool) { return "", false })
	decode.Document(source, &keys, func(key string) bool { return key != "env_file" && !strings.HasPrefix(key, "env_file[") })
	for _, name := range keys.EnvFile {
		if name != "" {
			names = append(names, source.Absolute(name))
		}
	}
	return names
}

// Next waits until files were saved and the save is complete. It returns their names, sorted and
// relative to the watched directory; an error only if ctx ends.
func (w *Watcher) Next(ctx context.Context) (names []string, err error) {
	pause := every
	for {
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		began := time.Now()
		changed := w.look()
		pause = max(every, share*time.Since(began))
		if len(changed) == 0 {
			continue
		}
		for limit := time.Now().Add(maxSettle); time.Now().Before(limit); {
			if err := sleep(ctx, quiet); err != nil {
				return nil, err
			}
			more := w.look()
			if len(more) == 0 {
				break
			}
			maps.Copy(changed, more)
		}
		return slices.Sorted(maps.Keys(changed)), nil
	}
}

// look returns the names of the files that have changed since the last call.
func (w *Watcher) look() map[string]bool {
	changed := make(map[string]bool)
	for i, r := range w.roots {
		now := r.readStamps()
		for path, stamp := range now {
			if w.seen[i][path] != stamp {
				changed[r.nameOf(path)] = true
			}
		}
		for path := range w.seen[i] {
			if _, found := now[path]; !found {
				changed[r.nameOf(path)] = true
			}
		}
		w.seen[i] = now
	}
	return changed
}

// nameOf returns the display name of a file.
func (r root) nameOf(path string) string {
	if name, err := filepath.Rel(r.path, path); err == nil && !r.isFile {
		return name
	}
	return filepath.Base(path)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
