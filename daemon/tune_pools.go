package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/autotune"
)

// This file gives each pool its tuner, and remembers what they learn.

// full is the part of the slots from which on a function is taken to have more to do
// than room for it.
const full = 0.9

// tune has measuring find the settings of each pool, for as long as it lives. It may
// be called again, when the configuration is another.
func (p *parts) tune() {
	d := p.daemon
	for app, own := range p.pools {
		if own.tuner.Load() != nil {
			continue
		}
		given, free := tuningBounds(p.cfg.Apps[app], own.Tunable(), runtime.GOMAXPROCS(0))
		of := lessonOf(p.cfg, app, own.code.Fingerprint())
		t := newTuner(own, given, free, d.lessons.of(app, of), d.log.With("app", app))
		watch := &poolWatch{daemon: d, pool: own, taken: make(map[string]int64)}
		t.loads = watch.loads
		t.apply = func(to autotune.Decision) { own.apply(d, to, t.log) }
		t.move = func(function string, to *handlers.Slots) { d.moveShare(own, function, to) }
		own.tuner.Store(t)
		t.look(time.Now()) // what it begins with holds before the first message comes
		own.running.Go(func() {
			keep := func(l autotune.Learned) { d.lessons.keep(app, of, l) }
			t.run(own.life, keep)
			keep(t.learned())
		})
		own.running.Go(func() {
			tick := time.NewTicker(lessonsEvery)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					d.lessons.keep(app, of, t.learned())
				case <-own.life.Done():
					return
				}
			}
		})
	}
}

// apply has a decision come in force. How many workers there are follows the load: the
// decision says how many they may be, and that all are wanted while there is more to do
// than room for it.
func (own *pool) apply(d *Daemon, to autotune.Decision, log *slog.Logger) {
	own.most.Store(int64(to.Processes))
	own.Set(workers.Settings{Threads: to.Threads, Coroutines: to.Coroutines})
	stats := own.Stats()
	if own.scaled && own.pressed.Load() && stats.Wanted != to.Processes {
		log.Info("scaling workers", "from", stats.Wanted, "to", to.Processes, "bound", scaler.BoundPressed, "why", to.Note)
		own.Scale(to.Processes)
	}
	ready := max(stats.Ready, 1)
	for _, f := range d.running() {
		if f.pool != own {
			continue
		}
		limit := f.concurrency
		if each := to.Limits[f.Name]; each > 0 && (limit == 0 || each*ready < limit) {
			limit = each * ready
		}
		if f.limited != limit {
			f.limited = limit
			f.Share.Limit(limit)
		}
	}
}

// poolWatch tells how busy the functions of a pool are.
type poolWatch struct {
	daemon *Daemon
	pool   *pool
	at     time.Time
	taken  map[string]int64 // by function: µs of slots
}

// loads implements what a tuner wants to know.
func (w *poolWatch) loads(now time.Time) map[string]load {
	out := make(map[string]load)
	elapsed := now.Sub(w.at)
	first := w.at.IsZero() || elapsed <= 0
	w.at = now
	pressed := false
	for _, f := range w.daemon.running() {
		if f.pool != w.pool {
			continue
		}
		used, slots := f.Share.Room()
		taken := f.Stats.SlotTime(now)
		l := load{limit: f.concurrency, timeout: f.Timeout}
		if !first {
			l.inFlight = float64(taken-w.taken[f.Name]) / float64(elapsed.Microseconds())
		}
		w.taken[f.Name] = taken
		if slots > 0 && max(float64(used), l.inFlight) >= full*float64(slots) {
			// All is taken, by this function or by others: whether it has more to do its
			// source knows. One that does not tell is believed to have.
			ctx, cancel := context.WithTimeout(w.pool.life, backlogLimit)
			l.saturated = w.daemon.backlogs.of(ctx, w.daemon, f.Name, statusFresh).ready != 0
			cancel()
		}
		pressed = pressed || l.saturated
		out[f.Name] = l
	}
	w.pool.pressed.Store(pressed)
	return out
}

// lessonsEvery is how often what was learned is written down, if it has changed.
const lessonsEvery = 30 * time.Second

// lessons are what was learned of each app, over restarts: a file in data_dir.
type lessons struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	apps map[string]lesson
}

// lesson is what was learned of an app.
type lesson struct {
	autotune.Learned
	// Of tells the code and the user's settings that it was learned of from others.
	Of string `json:"of"`
}

// lessonOf tells an app's code and settings, and its functions, from others.
func lessonOf(cfg *configs.Config, app, code string) string {
	settings := cfg.Apps[app]
	if settings.Scaled { // the number is the machine's, and not the user's
		settings.Processes = 0
	}
	text, err := json.Marshal([]any{code, settings, appFunctions(cfg)[app]})
	if err != nil {
		return "" // it is all strings and numbers
	}
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:16])
}

// readLessons reads the file, if there is one. One that cannot be read is as good as
// none: what was in it is found again.
func readLessons(dir string, log *slog.Logger) *lessons {
	l := &lessons{path: filepath.Join(dir, "tuning.json"), log: log, apps: make(map[string]lesson)}
	err := l.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("saved measurements of the apps cannot be read; they will be measured again", "file", l.path, "error", err)
	}
	if err != nil || l.apps == nil { // null is JSON, too
		l.apps = make(map[string]lesson)
	}
	return l
}

// maxLessons is the size of a file that is read: a lesson has a few KiB.
const maxLessons = 16 << 20

func (l *lessons) read() error {
	info, err := os.Stat(l.path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() > maxLessons:
		return fmt.Errorf("%s is not a file that drover wrote: %v, %d bytes; remove it", l.path, info.Mode(), info.Size())
	}
	text, err := os.ReadFile(l.path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &l.apps)
}

// of returns what was learned of an app; nil if nothing.
func (l *lessons) of(app, of string) *autotune.Learned {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, found := l.apps[app]
	if !found {
		return nil
	}
	if last.Of != of {
		last.Learned = last.Changed()
	}
	return &last.Learned
}

// keep writes down what was learned of an app.
func (l *lessons) keep(app, of string, learned autotune.Learned) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := lesson{learned, of}
	if reflect.DeepEqual(l.apps[app], next) {
		return
	}
	l.apps[app] = next
	if err := l.write(); err != nil {
		l.log.Warn("cannot save the measurements of the apps", "error", err)
	}
}

func (l *lessons) write() error {
	text, err := json.MarshalIndent(l.apps, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", l.path, err)
	}
	beside := l.path + ".new"
	if err := os.WriteFile(beside, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(beside, l.path)
}
