package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Config describes a function to the dispatcher.
type Config struct {
	Name    string
	Trigger triggers.Trigger
	Handler handlers.Handler
	Share   *handlers.Share   // the slots in which the handler runs
	Memory  *triggers.Account // the budget for bodies in flight; nil: no limit
	Outputs []*Output         // where results go; none: they are dropped

	// OutputNames are the names to which the function may send, in the configuration's order.
	OutputNames []string

	Timeout      time.Duration // of each attempt
	MaxBody      int64         // in bytes; 0: the source's limit
	Retry        Retry
	CancelOnLost bool // cancels the attempt when its lease is lost

	// Epochs is the current epoch of the pool that runs the function, and PoolIndex is the
	// function's index in the pool. Epochs is nil if nothing tunes the pool.
	Epochs    *atomic.Pointer[Epoch]
	PoolIndex int

	Stats      *Stats
	Spans      *Spans      // nil: nothing is traced
	Standstill *Standstill // nil: nothing checks the clock
	Log        *slog.Logger
	// Completions decides which completed messages are logged at level info. The others, and all
	// without it, are logged at level debug.
	Completions *telemetry.FunctionCompletions
}

// Function moves the messages of one function from its trigger through its handler and
// its outputs. Its configuration may be changed until Run or RunOne is called. Run and
// Close are called once each; all other methods may be called from many goroutines.
type Function struct {
	Config

	starter      handlers.Starter   // the handler, if it implements Starter
	collector    handlers.Collector // likewise
	executions   executionPool
	inFlight     inFlightSet
	failures     recentFailures
	receiveError atomic.Value // a string: why nothing could be received
	batch        []*execution // the executions of one dispatch; only Run uses it
	unfinished   sync.WaitGroup
	stuck        stuck
	pause        pauseSwitch
	extra        extraRuns

	// Set by Run. The end of the first stops receiving, that of the second cancels work, that of
	// the third cancels settling.
	receiving, working, settling context.Context

	stopOnce  sync.Once
	stopped   chan struct{} // closed when the function's code fails to load
	loadError error         // read after stopped is closed
}

// New makes a function. It opens and starts nothing.
func New(c Config) *Function { return &Function{Config: c, stopped: make(chan struct{})} }

// closeLimit bounds how long the handler and the trigger may take to close.
const closeLimit = 10 * time.Second

// Close closes the outputs, the handler and the trigger, and frees the memory. It must be called
// after Run has returned, or when the caller has given up waiting for messages in flight. Fields
// that were never set are skipped.
func (f *Function) Close() (err error) {
	var closing sync.WaitGroup
	for _, o := range f.Outputs {
		closing.Go(o.closeLanes)
	}
	closing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if f.Handler != nil {
		err = f.Handler.Close(ctx)
	}
	if f.Trigger != nil {
		err = errors.Join(err, f.Trigger.Close(ctx))
	}
	f.Memory.Close()
	return err
}

// LoadError returns why the function stopped: its code failed to load. It is nil while the
// function may run.
func (f *Function) LoadError() error {
	if !f.hasStopped() {
		return nil
	}
	return f.loadError
}

// SetPaused pauses a function until a time, or without an end if until is zero, or resumes it. A
// paused function receives nothing; messages in flight finish.
func (f *Function) SetPaused(paused bool, until time.Time) {
	f.pause.setPaused(f.Share, f.Trigger, paused, until)
}

// PauseState returns whether the function is paused, and until when; zero is no end.
func (f *Function) PauseState() (paused bool, until time.Time) { return f.pause.pauseState() }

// ConnectionState returns the time since when the source cannot be reached, zero if it can be, and
// the number of reconnects, if the source reports it.
func (f *Function) ConnectionState(now time.Time) (down time.Time, reconnects int64) {
	down = f.Stats.receiving.failingSince(now)
	if linked, ok := f.Trigger.(triggers.Linked); ok {
		if link, known := linked.Link(); known {
			reconnects = link.Reconnects
			if !link.Down.IsZero() && (down.IsZero() || link.Down.Before(down)) {
				down = link.Down
			}
		}
	}
	return down, reconnects
}

// ReceiveError returns the last error of receiving, which may be over; empty if there was none.
func (f *Function) ReceiveError() string {
	text, _ := f.receiveError.Load().(string)
	return text
}

// ListBlockages returns why messages that were handled cannot be settled.
func (f *Function) ListBlockages() []Blockage { return f.stuck.listBlockages() }

// LatestFailure returns the latest failure of a message, or of any message if the ID is empty.
// found is false if no such failure is kept.
func (f *Function) LatestFailure(message string) (last RecentFailure, found bool) {
	return f.failures.latestOf(message)
}

// WaitingRetries counts messages that failed here and wait for their next attempt, and
// returns when the first is due.
func (f *Function) WaitingRetries(now time.Time) (n int, next time.Time) {
	return f.failures.waitingRetries(now)
}

// InFlight describes a message in flight.
type InFlight struct {
	Message  *triggers.Message
	Received time.Time
	Started  time.Time // when it got its slot; zero: it waits for one
	Lost     bool      // its lease was lost
	// Blocked is why it cannot be settled after it was handled, and BlockedSince since when; empty
	// if it can be.
	Blocked      string
	BlockedSince time.Time
}

// FindInFlight returns the message in flight with an ID.
func (f *Function) FindInFlight(id string) (found InFlight, ok bool) {
	for _, x := range f.inFlight.listAll() {
		if x.delivery.Message.ID == id {
			return x.describeInFlight(), true
		}
	}
	return found, false
}

// OldestInFlight returns the message in flight that was received first, if any.
func (f *Function) OldestInFlight() (oldest InFlight, ok bool) {
	var first *execution
	for _, x := range f.inFlight.listAll() {
		if first == nil || x.received.Before(first.received) {
			first = x
		}
	}
	if first == nil {
		return oldest, false
	}
	return first.describeInFlight(), true
}

func (x *execution) describeInFlight() InFlight {
	out := InFlight{Message: x.delivery.Message, Received: x.received, Lost: x.lost.Load()}
	if begun := x.begun.Load(); begun != 0 {
		out.Started = processStart.Add(time.Duration(begun))
	}
	out.Blocked, out.BlockedSince, _ = x.f.stuck.reasonOf(x.delivery)
	return out
}

// Result is the result of a handler.
type Result struct {
	Output     []byte
	Properties triggers.Properties // of the output
	Named      []NamedMessage      // messages to named outputs; none if it failed
	Err        error
	Start      time.Time // when the attempt began
}

// RunOne handles one message without Run: it calls the handler, sends the result, and settles. The
// caller has claimed a slot of the share, which RunOne frees. The end of ctx cancels the work.
func (f *Function) RunOne(ctx context.Context, d *triggers.Delivery) Result {
	f.receiving, f.working, f.settling = ctx, ctx, ctx
	x := f.newExecution(d, time.Now(), true)
	f.Stats.slots.takeSlots(1)
	f.unfinished.Add(1)
	x.runToEnd()
	return Result{Output: x.output, Properties: x.outputProperties, Named: x.listNamed(), Err: x.err, Start: x.start}
}
