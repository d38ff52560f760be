package watch

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
)

// Daemon is the daemon that a Watcher reloads.
type Daemon interface {
	// ReloadFile reads the configuration and the code again. If it returns an error, which the daemon
	// has logged, nothing has changed.
	ReloadFile(ctx context.Context) (api.Changes, error)
	// Config returns the current configuration.
	Config() *configs.Config
}

// StartReloads reloads a daemon after each save and logs the changes, from the time when ready is closed
// until stop is called or ctx ends. Meanwhile no other method may be called.
func (w *Watcher) StartReloads(ctx context.Context, ready <-chan struct{}, d Daemon, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
		log.Info("watching for saved files")
		for {
			names, err := w.Next(ctx)
			if err != nil {
				return
			}
			w.reload(ctx, d, log.With("files", shortList(names)))
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

func (w *Watcher) reload(ctx context.Context, d Daemon, log *slog.Logger) {
	began := time.Now()
	changes, err := d.ReloadFile(ctx)
	if ctx.Err() != nil {
		return // the daemon stops
	}
	took := time.Since(began).Round(time.Millisecond)
	switch functions := slices.Concat(changes.Added, changes.Changed); {
	case err != nil:
		log.Warn("saved files were not loaded; the old code keeps running until the next save")
	case len(functions) > 0:
		log.Info("saved files were loaded", "functions", shortList(functions), "took", took)
	case len(changes.Removed) > 0:
		log.Info("saved files were loaded", "removed", shortList(changes.Removed), "took", took)
	default:
		log.Info("saved files change no function", "took", took)
	}
	w.Follow(d.Config())
}

// few is the maximum number of names in a log line.
const few = 5

func shortList(names []string) string {
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// RunAgain calls run, which runs a daemon until ctx ends. If run fails earlier, RunAgain reports the
// error, waits for a save and calls it again: until ctx ends or run returns nil.
func (w *Watcher) RunAgain(ctx context.Context, run func() error, report func(error)) error {
	for {
		err := run()
		if err == nil || ctx.Err() != nil {
			return err
		}
		report(err)
		if _, err := w.Next(ctx); err != nil {
			return nil // stopped while waiting
		}
	}
}
