package workers

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// code is the state of the app's code, as reported by the workers: whether it loads, and the kinds
// of its functions.
type code struct {
	functions []worker.Function
	log       *slog.Logger
	loadDone  chan struct{} // closed when the first worker is ready, or none will be

	mu       sync.Mutex
	async    map[string]bool // by function; empty until a worker has loaded the code
	tunable  bool            // whether threads can change while workers run
	forkable bool            // whether workers could be forked
	failed   *handlers.LoadError
}

func newCode(functions []worker.Function, log *slog.Logger) *code {
	return &code{functions: functions, log: log, loadDone: make(chan struct{}), async: make(map[string]bool)}
}

// recordLoad records a worker's answer to LOAD. It reports whether that disabled the pool.
func (c *code) recordLoad(w *worker.Worker) (disabled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.Failed != nil && c.failed == nil {
		c.disablePool(&handlers.LoadError{Summary: w.Failed.Summary, Detail: w.Failed.Detail})
		disabled = true
	}
	if w.Ready != nil && len(c.async) == 0 {
		for i, f := range c.functions {
			c.async[f.Name] = w.Ready.Functions[i].Kind == "async"
		}
		c.tunable = w.HasCapability(protocol.CanSettings)
		c.forkable = slices.Contains(w.Welcome.Capabilities, protocol.CanFork) && w.Ready.Unforkable == ""
		c.log.Debug("workers load", "language", w.Welcome.Language, "version", w.Welcome.Version)
	}
	if c.failed != nil || len(c.async) > 0 {
		c.wakeWaiters()
	}
	return disabled
}

// disableUnloaded disables the pool, unless the code has loaded once. It reports whether it did.
func (c *code) disableUnloaded(why *handlers.LoadError) (disabled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.async) > 0 || c.failed != nil {
		return false
	}
	c.disablePool(why)
	c.wakeWaiters()
	return true
}

// disablePool stops the start of workers. If the code loaded before, no caller waits for the
// result, so disablePool logs it. c.mu is held.
func (c *code) disablePool(why *handlers.LoadError) {
	c.failed = why
	if len(c.async) > 0 {
		c.log.Error("the code no longer loads; no worker is started until the daemon is", "error", why.Summary, "detail", why.Detail)
	}
}

// wakeWaiters wakes all callers that wait for the first worker. c.mu is held.
func (c *code) wakeWaiters() {
	select {
	case <-c.loadDone:
	default:
		close(c.loadDone)
	}
}

// stopWaiting wakes all callers that wait for the first worker, whether it has loaded or not.
func (c *code) stopWaiting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeWaiters()
}

// waitSettled waits for the first worker.
func (c *code) waitSettled(ctx context.Context) error {
	select {
	case <-c.loadDone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// loadFailure returns why the pool is disabled: a *handlers.LoadError, or nil.
func (c *code) loadFailure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		return nil
	}
	return c.failed
}

// hasLoaded reports whether a worker has ever loaded the code.
func (c *code) hasLoaded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.async) > 0
}

// isAsync reports whether a function runs on the event loop.
func (c *code) isAsync(function string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.async[function]
}

// setAsync sets whether a function runs on the event loop or in threads.
func (c *code) setAsync(function string, async bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.async[function] = async
}

// capabilities returns the capabilities of the workers with this code.
func (c *code) capabilities() (tunable, forkable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tunable, c.forkable
}

// indexOf returns the index of a function in Config.Functions; -1 if it is not there.
func (c *code) indexOf(function string) int {
	return slices.IndexFunc(c.functions, func(f worker.Function) bool { return f.Name == function })
}

// functionNames returns the names of the functions, in the order of Config.Functions.
func (c *code) functionNames() []string {
	out := make([]string, len(c.functions))
	for i, f := range c.functions {
		out[i] = f.Name
	}
	return out
}
