package apps

import (
	"context"
	"log/slog"
	"sync"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps/labels"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/handlers"
)

// Function is a function of the configuration: what dispatch runs, and the app behind its
// handler.
type Function struct {
	*dispatch.Function
	Describe   string // the handler, as text
	Connection string // the connection of its trigger
	App        string // of its pool; empty if no pool runs it
	Pool       *Pool  // nil if no pool runs it
	// Labels marks its goroutines for a profile; nil if it is no Go function.
	Labels *labels.Switch
	// Concurrency is the most that may be in flight, by the configuration; 0 is no limit.
	Concurrency int

	limit int // of its share, as tuning last set it; 0 is no limit

	checking     sync.WaitGroup // of the HTTP app
	stopChecking context.CancelFunc
	closeOnce    sync.Once
}

// NewFunction returns a function without a handler and a trigger. OpenHandler gives it the
// former.
func NewFunction(name string, settings configs.Function, log *slog.Logger) *Function {
	r := settings.Retry
	return &Function{
		Function: dispatch.New(dispatch.Config{
			Name:         name,
			Timeout:      settings.Timeout.D(),
			MaxBody:      int64(settings.MaxBody),
			Retry:        dispatch.Retry{MaxAttempts: r.MaxAttempts, Initial: r.Initial.D(), Max: r.Max.D(), Jitter: r.Jitter},
			CancelOnLost: settings.Trigger.CancelOnLost(),
			OutputNames:  settings.Output.OutputNames(),
			Stats:        new(dispatch.Stats),
			Log:          log,
		}),
		Describe:    settings.Handler.String(),
		Connection:  settings.Trigger.ConnectionName(),
		Concurrency: settings.Concurrency, limit: settings.Concurrency,
	}
}

// LimitShare sets how many messages may be in flight; 0 is no limit.
func (f *Function) LimitShare(limit int) {
	if f.limit != limit {
		f.limit = limit
		f.Share.Limit(limit)
	}
}

// moveShare gives the function the slots of other workers.
func (f *Function) moveShare(to *handlers.Slots) {
	if batched, is := f.Handler.(*batches.Handler); is {
		to = batched.MoveCalls(to)
	}
	f.Share.Move(to)
}

// Close frees the function's resources. Nothing may be in flight, unless the
// caller has given up waiting for it. Only the first call has an effect.
func (f *Function) Close() (err error) {
	f.closeOnce.Do(func() {
		if f.stopChecking != nil {
			f.stopChecking()
		}
		f.checking.Wait()
		err = f.Function.Close()
	})
	return err
}
