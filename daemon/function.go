package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// function moves the messages of one function from its trigger through its
// handler. run is called once.
type function struct {
	name    string
	trigger triggers.Trigger
	handler handlers.Handler
	source  string // the connection that messages come by
	share   *handlers.Share
	memory  *triggers.Account // nil: there is no budget
	// concurrency is the most that may be in flight, by the configuration; 0 is no
	// limit. limited is what share was told last, by the pool's tuner.
	concurrency, limited int
	timeout              time.Duration
	maxBody              int64 // 0: what the source allows
	retry                configs.Retry
	stats                *functionStats
	pool                 *pool                  // nil for Go functions
	epochs               *atomic.Pointer[epoch] // of its pool; nil for Go functions
	place                int                    // among the pool's functions
	app                  string                 // the pool's; empty for Go functions
	outputs              []*output              // none: results are dropped
	describe             string                 // the handler, for people
	spans                *spans                 // nil: nothing is traced
	pauses               pauses
	// cancelOnLost ends an attempt whose message was lost.
	cancelOnLost bool
	log          *slog.Logger

	starter      handlers.Starter // the handler, if it is one
	executions   executionPool
	inFlight     inFlightTable[execution]
	failures     recentFailures
	receiveError atomic.Value // of type string: why nothing could be received
	batch        []*execution // of one dispatch; run's
	unfinished   sync.WaitGroup
	stuck        stuck

	standstill *standstill // nil: the daemon does not look
	runContexts

	stopOnce sync.Once
	stopped  chan struct{} // closed when the function can't go on
	misload  error         // why; read after stopped is closed

	// What runs beside it: the check of an app.
	beside     sync.WaitGroup
	stopBeside context.CancelFunc // nil where that ends by itself
	closeOnce  sync.Once
}

// runContexts are set by run. The first ends receiving, the next work, the last settling.
type runContexts struct{ receiving, working, settling context.Context }

func newFunction(name string, settings configs.Function, log *slog.Logger) *function {
	return &function{
		name:     name,
		describe: settings.Handler.String(),
		source:   settings.Trigger.Connection(),
		timeout:  settings.Timeout.D(),

		concurrency: settings.Concurrency, limited: settings.Concurrency,

		maxBody: int64(settings.MaxBody),
		retry:   settings.Retry,
		stats:   new(functionStats),

		cancelOnLost: settings.Trigger.CancelOnLost(),

		log:     log,
		stopped: make(chan struct{}),
	}
}

// close frees what the function holds, once; nothing is in flight any more, or it
// is given up.
func (f *function) close() (err error) {
	f.closeOnce.Do(func() {
		if f.stopBeside != nil {
			f.stopBeside()
		}
		f.beside.Wait()
		var closing sync.WaitGroup
		for _, o := range f.outputs {
			closing.Go(o.close)
		}
		closing.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if f.handler != nil { // nil where the function did not open
			err = f.handler.Close(ctx)
		}
		if f.trigger != nil {
			err = errors.Join(err, f.trigger.Close(ctx))
		}
		f.memory.Close()
	})
	return err
}

// connectionState is how a function's source is reached.
func (f *function) connectionState(now time.Time) (down time.Time, reconnects int64) {
	down = f.stats.receiving.failingSince(now)
	if linked, ok := f.trigger.(triggers.Linked); ok {
		if link, known := linked.Link(); known {
			reconnects = link.Reconnects
			if !link.Down.IsZero() && (down.IsZero() || link.Down.Before(down)) {
				down = link.Down
			}
		}
	}
	return down, reconnects
}
