package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/triggers/lease/record"
)

// leftLimit bounds the release of one lease.
const leftLimit = 10 * time.Second

// ReleaseLeft releases the leases that this daemon held when it was killed, with the source's
// release function. That function returns an error that wraps ErrLost if the lease has ended. If it
// fails, the message is redelivered when its lease expires. ReleaseLeft returns the number of
// released leases.
func ReleaseLeft(ctx context.Context, of *record.Source, log *slog.Logger, release func(ctx context.Context, id, token string) error) int {
	var released atomic.Int64
	Concurrently(of.Left(), func(e *record.Entry) {
		ctx, cancel := context.WithTimeout(ctx, leftLimit)
		defer cancel()
		err := release(ctx, e.ID(), e.Token())
		switch {
		case err == nil:
			released.Add(1)
		case !errors.Is(err, ErrLost):
			log.Debug("cannot release a lease of the last run; its message is redelivered when the lease expires", "message", e.ID(), "error", err)
			return
		}
		of.Drop(e)
	})
	if n := released.Load(); n > 0 {
		log.Info("messages released that were in flight when the daemon was killed", "count", n)
	}
	return int(released.Load())
}
