package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Config is what the dispatcher needs to know of a function.
type Config struct {
	Name    string
	Trigger triggers.Trigger
	Handler handlers.Handler
	Share   *handlers.Share   // of the slots in which the handler runs
	Memory  *triggers.Account // for the bodies in flight; nil: there is no budget
	Outputs []*Output         // of results; none: they are dropped

	Timeout      time.Duration // of each attempt
	MaxBody      int64         // in bytes; 0: what the source allows
	Retry        Retry
	CancelOnLost bool // ends an attempt when its source takes the message back

	// Epochs is the present epoch of the pool that runs the function, and Place that of the
	// function in the pool; nil where nothing seeks settings.
	Epochs *atomic.Pointer[Epoch]
	Place  int

	Stats      *Stats
	Spans      *Spans      // nil: nothing is traced
	Standstill *Standstill // nil: nothing checks the clock
	Log        *slog.Logger
}

// Function moves the messages of one function from its trigger through its handler and
// its outputs. Its configuration may be changed until Run or RunOne is called. Run and
// Close are called once each; all other methods may be called from many goroutines.
type Function struct {
	Config

	starter      handlers.Starter // the handler, if it is one
	executions   executionPool
	inFlight     inFlightTable[execution]
	failures     recentFailures
	receiveError atomic.Value // of type string: why nothing could be received
	batch        []*execution // of one dispatch; Run's
	unfinished   sync.WaitGroup
	stuck        stuck
	pause        pauseSwitch

	// Set by Run. The first ends receiving, the next work, the last settling.
	receiving, working, settling context.Context

	stopOnce  sync.Once
	stopped   chan struct{} // closed when the function's code fails to load
	loadError error         // read after stopped is closed
}

// New makes a function. It opens and starts nothing.
func New(c Config) *Function { return &Function{Config: c, stopped: make(chan struct{})} }

// closeLimit bounds the closing of the handler and the trigger.
const closeLimit = 10 * time.Second

// Close closes the outputs, the handler and the trigger, and frees the memory. Run has
// returned, or what is in flight is given up. What was never set is skipped.
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

// LoadError is why the function stopped: its code failed to load. It is nil while the
// function may run.
func (f *Function) LoadError() error {
	if !f.hasStopped() {
		return nil
	}
	return f.loadError
}

// SetPaused pauses the function until a time, or without end if that is zero, or resumes
// it. A paused function receives nothing; messages in flight finish.
func (f *Function) SetPaused(paused bool, until time.Time) { f.pause.set(f.Share, paused, until) }

// PauseState returns whether the function is paused, and until when.
func (f *Function) PauseState() (paused bool, until time.Time) { return f.pause.state() }

// ConnectionState returns since when the source cannot be reached, zero if it can be, and how
// often a connection was made again, if the source reports it.
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

// ReceiveError is the last error of receiving, which may be over; empty if there was none.
func (f *Function) ReceiveError() string {
	text, _ := f.receiveError.Load().(string)
	return text
}

// Blockages are why messages that were handled cannot leave.
func (f *Function) Blockages() []Blockage { return f.stuck.listBlockages() }

// LatestFailure is the latest failure of a message, or of any message if the ID is empty, if
// it is among those that are remembered.
func (f *Function) LatestFailure(message string) (last RecentFailure, found bool) {
	return f.failures.latestOf(message)
}

// WaitingRetries counts messages that failed here and wait for their next attempt, and
// returns when the first is due.
func (f *Function) WaitingRetries(now time.Time) (n int, next time.Time) {
	return f.failures.waitingRetries(now)
}

// InFlight is a message in flight.
type InFlight struct {
	Message  *triggers.Message
	Received time.Time
	Started  time.Time // when it got its slot; zero: it waits for one
	Lost     bool      // its source has taken it back
	// Blocked is why it cannot leave, though it was handled, and BlockedSince since when;
	// empty: nothing keeps it.
	Blocked      string
	BlockedSince time.Time
}

// FindInFlight finds a message in flight by its ID.
func (f *Function) FindInFlight(id string) (found InFlight, ok bool) {
	for _, x := range f.inFlight.list() {
		if x.delivery.Message.ID == id {
			return f.describeInFlight(x), true
		}
	}
	return found, false
}

// OldestInFlight is the message in flight that was received first, if there is one.
func (f *Function) OldestInFlight() (oldest InFlight, ok bool) {
	var first *execution
	for _, x := range f.inFlight.list() {
		if first == nil || x.received.Before(first.received) {
			first = x
		}
	}
	if first == nil {
		return oldest, false
	}
	return f.describeInFlight(first), true
}

func (f *Function) describeInFlight(x *execution) InFlight {
	out := InFlight{Message: x.delivery.Message, Received: x.received, Lost: x.lost.Load()}
	if begun := x.begun.Load(); begun != 0 {
		out.Started = processStart.Add(time.Duration(begun))
	}
	out.Blocked, out.BlockedSince, _ = f.stuck.reasonOf(x.delivery)
	return out
}

// Result is what a handler returned.
type Result struct {
	Output     []byte
	Properties triggers.Properties // of the output
	Err        error
	Start      time.Time // when the attempt began
}

// RunOne takes one message the whole way, without Run: it is handled, its result is sent,
// and it is settled. The caller has claimed a slot of the share, which RunOne frees. ctx
// ends the work.
func (f *Function) RunOne(ctx context.Context, d *triggers.Delivery) Result {
	f.receiving, f.working, f.settling = ctx, ctx, ctx
	x := f.newExecution(d, time.Now(), true)
	f.Stats.taken.take(1)
	f.unfinished.Add(1)
	x.runToEnd()
	return Result{Output: x.output, Properties: x.about, Err: x.err, Start: x.start}
}
