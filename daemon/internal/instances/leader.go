package instances

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// leaderInterval is the time between two attempts to become the daemon that scales.
const leaderInterval = time.Second

// AcquireLeaderLock waits until no other daemon scales the data directory, which it creates if it
// is missing. It returns nil without an error if ctx ended first.
func AcquireLeaderLock(ctx context.Context, dataDir string, log *slog.Logger) (*flock.Flock, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making data_dir: %w", err)
	}
	lock := flock.New(filepath.Join(dataDir, "scaler.lock"))
	leads, err := lock.TryLock()
	if err == nil && !leads {
		log.Warn("another daemon uses this data directory for scaling; standing by until it exits", "data_dir", dataDir)
		leads, err = lock.TryLockContext(ctx, leaderInterval)
	}
	switch {
	case leads:
		return lock, nil
	case ctx.Err() != nil:
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", lock.Path(), err)
}
