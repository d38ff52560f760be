// Package batches collects the messages of a function, and runs several of them in one call.
//
// A Handler connects the dispatcher with a handlers.Batched: each message keeps its own
// execution, slot and lease in the dispatcher, and gets its own result. The dispatcher calls Start
// for each message, from one goroutine or several, and EndReceive after the messages of one Receive.
// A batch has as many of the waiting messages as Config allows. It runs on its own goroutine,
// as soon as the workers have a slot for its call; until then it takes further messages.
//
// A batch that fails as a whole runs again in halves, one after the other: only messages that fail
// alone have failed. StartCollecting's context ends the wait for slots, and Close waits for the
// goroutines.
package batches

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// MaxSize is the maximum of Config.Size.
const MaxSize = 4096

// A source delivers messages that are there one after the other, or some at a time. So a batch without
// a Window is complete when nothing arrives for quiet, and at the latest longestQuiet after its first
// message.
const (
	quiet        = 5 * time.Millisecond
	longestQuiet = 20 * time.Millisecond
)

// Config is how messages are collected.
type Config struct {
	Function string // its name, for traces
	// Size is the maximum number of messages in a batch, 1 to MaxSize.
	Size int
	// Min is the number of messages for which a batch waits, at most for Window after its first
	// one. With the Window 0 it has the messages that are there.
	Min    int
	Window time.Duration
	// OneKey is set if all messages of a batch must have the same ordering key, as for functions of
	// Azure Functions apps: a batch there has one session.
	OneKey bool
	// Concurrency is the number of slots for messages of a handler that is not handlers.Slotted.
	Concurrency int
	Counts      *Counts
	Log         *slog.Logger
}

// Handler runs the messages of one function in batches. Its methods may be called from many
// goroutines.
type Handler struct {
	handlers.Batched
	cfg     Config
	calls   *handlers.Share // the slots of calls; nil: as many run as there are batches
	working context.Context // set by StartCollecting
	running sync.WaitGroup

	mu       sync.Mutex
	waiting  []item // for a batch, in the order of Start
	keys     map[string]*keyState
	due      int         // the first of these need not wait for more
	timer    *time.Timer // makes the others due; nil: none is waiting for more
	first    time.Time   // when the first of them came, without a Window
	claiming bool        // a goroutine waits for a slot for a call
	ending   bool        // nothing waits for more
	slots    *handlers.Slots
	detach   func() // stops the slots from following the slots of calls
}

// item is a message in a batch.
type item struct {
	ctx     context.Context
	message *triggers.Message
	to      handlers.ResultSink
}

// New returns a handler that passes batches to another one. If that is a handlers.Slotted, each call
// takes one of its slots.
func New(to handlers.Batched, cfg Config) *Handler {
	h := &Handler{Batched: to, cfg: cfg, working: context.Background(), keys: make(map[string]*keyState), detach: func() {}}
	if slotted, is := to.(handlers.Slotted); is {
		slots := slotted.Slots()
		h.calls = slots.Share(0)
		h.slots, h.detach = slots.Derive(cfg.Size, MaxSize)
	} else {
		h.slots = handlers.NewSlots(cfg.Concurrency)
	}
	return h
}

// Slots implements handlers.Slotted, with the slots for messages.
func (h *Handler) Slots() *handlers.Slots {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.slots
}

// MoveCalls makes calls take the slots of other workers. It returns the new slots for messages.
func (h *Handler) MoveCalls(to *handlers.Slots) *handlers.Slots {
	h.calls.Move(to)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.detach()
	h.slots, h.detach = to.Derive(h.cfg.Size, MaxSize)
	return h.slots
}

// IsAsync reports whether the function runs on an event loop.
func (h *Handler) IsAsync() bool {
	of, is := h.Batched.(interface{ IsAsync() bool })
	return is && of.IsAsync()
}

// StartCollecting implements handlers.Collector.
func (h *Handler) StartCollecting(ctx context.Context) { h.working = ctx }

// Start implements handlers.Starter.
func (h *Handler) Start(ctx context.Context, m *triggers.Message, to handlers.ResultSink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isHeldBack(m) {
		to.SetResult(nil, errHeldBack)
		return
	}
	h.waiting = append(h.waiting, item{ctx, m, to})
	switch {
	case h.ending || len(h.waiting)-h.due >= h.cfg.Size:
		h.runWaiting()
	case h.timer == nil && h.cfg.Window > 0:
		h.startTimer(h.cfg.Window)
	case h.cfg.Window == 0 && len(h.waiting)-h.due == 1:
		h.first = time.Now()
	}
}

// EndReceive implements handlers.Collector.
func (h *Handler) EndReceive(more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch n := len(h.waiting) - h.due; {
	case n == 0:
	case !more, h.cfg.Window > 0 && n >= h.cfg.Min:
		h.runWaiting()
	case h.cfg.Window == 0:
		h.stopTimer()
		h.startTimer(min(quiet, max(longestQuiet-time.Since(h.first), 0)))
	}
}

// StopWaiting makes all messages run without waiting for more, from now on.
func (h *Handler) StopWaiting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = true
	h.runWaiting()
}

// startTimer starts the wait for more messages; mu is held.
func (h *Handler) startTimer(wait time.Duration) {
	var own *time.Timer
	own = time.AfterFunc(wait, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.timer == own {
			h.runWaiting()
		}
	})
	h.timer = own
}

// stopTimer ends the wait for more messages; mu is held.
func (h *Handler) stopTimer() {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

// runWaiting runs all messages that wait, as soon as there are slots; mu is held.
func (h *Handler) runWaiting() {
	h.stopTimer()
	h.due = len(h.waiting)
	h.runDue()
}

// runDue runs the messages that are due; mu is held.
func (h *Handler) runDue() {
	switch {
	case h.due == 0:
	case h.calls == nil:
		for items := h.takeBatch(); len(items) > 0; items = h.takeBatch() {
			h.running.Go(func() { h.runBatch(items) })
			if h.due == 0 {
				break
			}
		}
	case !h.claiming:
		h.claiming = true
		h.running.Go(h.claimSlots)
	}
}

// takeBatch removes the messages of one batch from those that wait. It returns none if all of them
// wait for others of their ordering keys. mu is held.
func (h *Handler) takeBatch() []item {
	var items []item
	rest, due := h.waiting[:0], 0
	for i, it := range h.waiting {
		switch {
		case len(items) < h.cfg.Size && h.isNext(it.message) && (len(items) == 0 || !h.cfg.OneKey || it.message.OrderingKey == items[0].message.OrderingKey):
			items = append(items, it)
			h.noteTaken(it.message)
			continue
		case i < h.due:
			due++
		}
		rest = append(rest, it)
	}
	clear(h.waiting[len(rest):])
	h.waiting, h.due = rest, due
	if h.due == len(h.waiting) {
		h.stopTimer()
	}
	h.setRunning(items, true, nil)
	return items
}

// claimSlots starts a batch with each slot that it gets, until no message is due. Messages that
// arrive while it waits run, too.
func (h *Handler) claimSlots() {
	for {
		err := h.calls.Claim(h.working)
		h.mu.Lock()
		var items []item
		if err == nil {
			items = h.takeBatch()
		} else {
			items, h.waiting, h.due = h.waiting, nil, 0
			h.stopTimer()
		}
		h.claiming = h.due > 0 && len(items) > 0
		again := h.claiming
		h.mu.Unlock()
		if err != nil {
			passError(items, fmt.Errorf("no slot for its batch: %w", handlers.ErrNotTried))
			return
		}
		if len(items) == 0 {
			h.calls.Free(1)
			return
		}
		h.running.Go(func() {
			defer h.calls.Free(1)
			h.runBatch(items)
		})
		if !again {
			return
		}
	}
}

// Handle implements handlers.Handler, with a batch of one message.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	if h.calls != nil {
		if err := h.calls.Claim(ctx); err != nil {
			return nil, fmt.Errorf("no slot for its call: %w", handlers.ErrRunAgain)
		}
		defer h.calls.Free(1)
	}
	var own lastResult
	h.runBatch([]item{{ctx, m, &own}})
	return own.output, own.err
}

// lastResult is a ResultSink that keeps the result.
type lastResult struct {
	output []byte
	err    error
}

// SetResult implements handlers.ResultSink.
func (r *lastResult) SetResult(output []byte, err error) { r.output, r.err = output, err }

// Close closes the handler to which batches were passed, after the last batch has ended.
func (h *Handler) Close(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.running.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	h.mu.Lock()
	h.detach()
	h.mu.Unlock()
	return h.Batched.Close(ctx)
}

func passError(items []item, err error) {
	for _, it := range items {
		it.to.SetResult(nil, err)
	}
}
