package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
)

// function is one of the configuration: what the dispatcher runs, and what else the daemon
// has of it.
type function struct {
	*dispatch.Function
	describe string // the handler, for people
	source   string // the connection that messages come by
	app      string // the pool's; empty where no pool runs it
	pool     *pool  // nil where none does
	// concurrency is the most that may be in flight, by the configuration; 0 is no
	// limit. limited is what the share was last set to, by the pool's tuner.
	concurrency, limited int

	// What runs beside it: the check of an app.
	beside     sync.WaitGroup
	stopBeside context.CancelFunc // nil without
	closeOnce  sync.Once
}

func newFunction(name string, settings configs.Function, log *slog.Logger) *function {
	r := settings.Retry
	return &function{
		Function: dispatch.New(dispatch.Config{
			Name:         name,
			Timeout:      settings.Timeout.D(),
			MaxBody:      int64(settings.MaxBody),
			Retry:        dispatch.Retry{MaxAttempts: r.MaxAttempts, Initial: r.Initial.D(), Max: r.Max.D(), Jitter: r.Jitter},
			CancelOnLost: settings.Trigger.CancelOnLost(),
			Stats:        new(dispatch.Stats),
			Log:          log,
		}),
		describe:    settings.Handler.String(),
		source:      settings.Trigger.Connection(),
		concurrency: settings.Concurrency, limited: settings.Concurrency,
	}
}

// close frees what the function holds, once. Nothing is in flight any more, or it is given
// up.
func (f *function) close() (err error) {
	f.closeOnce.Do(func() {
		if f.stopBeside != nil {
			f.stopBeside()
		}
		f.beside.Wait()
		err = f.Close()
	})
	return err
}

// status reports what the function did, and how it is.
func (f *function) status() FunctionStatus {
	c := f.Stats.Counts()
	s := FunctionStatus{
		Name: f.Name, Handler: f.describe,
		Received: c.Received, Done: c.Done, Retried: c.Retried, Rejected: c.Rejected, Released: c.Released, Abandoned: c.Abandoned,
		InFlight: c.InFlight, Lost: c.Lost, Failed: c.Failed, Rejections: c.Rejections, ReceiveErrors: c.ReceiveErrors,
		Latency: c.Latency, Age: c.Age,
	}
	if f.pool != nil {
		s.Workers = f.pool.Stats().Ready
	}
	s.Stopped = f.LoadError() != nil
	s.Paused, s.PausedUntil = f.PauseState()
	s.WaitsForMemory = f.Memory.Waits()
	if s.Disconnected, s.Reconnects = f.ConnectionState(time.Now()); !s.Disconnected.IsZero() {
		s.ReceiveError = f.ReceiveError()
	}
	s.Problems = f.problems()
	if gated, ok := f.Handler.(interface{ Open() bool }); ok {
		s.Gate = gateWord(gated.Open())
	}
	return s
}
