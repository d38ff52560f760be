// Package worker is one worker process as its pool uses it: the handshake, the frames of
// docs/worker-protocol.md in both directions, the calls in flight, and the end.
//
// A pool has a Group, and passes each process that it starts to the group's NewWorker. From
// BeginHandshake on two goroutines serve a worker, one that reads and one that writes; both
// end when the worker has ended. The methods of a Worker may be called from any goroutine,
// unless noted otherwise. Only Stop, ForkProcess and ThreadStacks wait for the worker.
package worker

import (
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Worker is one process with its calls in flight.
type Worker struct {
	Process *process.Process
	Log     *slog.Logger
	Started time.Time

	Handshake

	// Gone is closed when the worker takes no more calls. From then on, Reason, Cause and LostCalls
	// are set.
	Gone      chan struct{}
	Reason    error
	Cause     process.Cause
	LostCalls int // calls in flight at its end

	group    *Group
	forked   chan protocol.ForkedFrame // a template's answers to FORK; nil for other workers
	retiring atomic.Bool               // it gets no more calls; set with mu held
	inFlight atomic.Int64

	appliedSettings
	heartbeat heartbeat

	mu sync.Mutex
	guarded

	askStacks sync.Once
	stacks    string // of its threads, once they were requested

	wake signal // there are frames to write
	done sync.WaitGroup
}

// signal wakes the receiver. It has a capacity of 1.
type signal chan struct{}

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Handshake has a worker's answers up to READY.
type Handshake struct {
	// Loaded is closed when the worker has answered LOAD. From then on, Ready or Failed is set,
	// and so is Welcome, its answer to HELLO.
	Loaded  chan struct{}
	Welcome *protocol.WelcomeFrame
	Ready   *protocol.ReadyFrame
	Failed  *protocol.FailedFrame
}

// HasCapability reports whether the worker has a capability. It is called after Loaded is closed.
func (h *Handshake) HasCapability(what string) bool {
	return slices.Contains(h.Welcome.Capabilities, what)
}

// sharesLoop reports whether calls share the worker's event loop. If calls run one after the other, a
// call that blocks the loop is not a problem.
func (h *Handshake) sharesLoop() bool {
	if h.Ready == nil {
		return false // its code did not load
	}
	for _, f := range h.Ready.Functions {
		if f.Kind == "async" {
			return true
		}
	}
	return false
}

// guarded are the fields that the worker's mu guards.
type guarded struct {
	out     outgoing
	writing bool // writeQueued writes what it has taken from out

	calls []*Call // by the number of the invocation
	free  []uint32
	sums  []Measures // by function
	lost  lostTime

	taken    int // calls
	notifyAt int // number of calls at which Changed is called; 0 is never
	answers  int
	answered time.Time // the time of the last answer
	revoked  time.Time // the time of the last revokeQueued

	dead      bool
	why       error         // why the daemon kills it, if it does
	whose     process.Cause // the same as a cause
	disobeyed *Call         // the last call for which it was killed
}

// appliedSettings are the settings that were sent to the worker last.
type appliedSettings struct {
	applying   sync.Mutex // held from reading settings until they are sent
	threads    atomic.Int64
	inForce    atomic.Int64 // the threads that certainly run calls; see ApplySettings
	loadedWith atomic.Int64 // the threads with which it loaded the code
	threaded   atomic.Int64 // how many async functions run in threads
	extra      atomic.Int64 // messages queued beyond those that run
}

// NewWorker returns a worker to which nothing has been sent.
func (g *Group) NewWorker(proc *process.Process) *Worker {
	return &Worker{
		Process:   proc,
		Log:       g.cfg.Log.With("worker", proc.PID),
		Started:   time.Now(),
		Handshake: Handshake{Loaded: make(chan struct{})},
		Gone:      make(chan struct{}),
		group:     g,
		guarded:   guarded{sums: make([]Measures, len(g.cfg.Functions))},
		wake:      make(signal, 1),
	}
}

// Submit queues a call. It returns false if the worker has ended or is retiring.
func (w *Worker) Submit(c *Call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.retiring.Load() {
		return false
	}
	var id uint32
	if n := len(w.free); n > 0 {
		id, w.free = w.free[n-1], w.free[:n-1]
		w.calls[id] = c
	} else {
		id = uint32(len(w.calls))
		w.calls = append(w.calls, c)
	}
	idle := w.inFlight.Add(1) == 1
	if w.taken++; w.notifyAt > 0 && w.taken >= w.notifyAt {
		w.notifyAt = 0
		w.group.cfg.Changed()
	}
	c.ID, c.submitted = id, time.Now()
	c.lostAtSubmit = w.lost.totalUntil(c.submitted)
	queued := len(w.out.bytes)+len(w.out.large) > 0 || w.writing
	w.out.addInvoke(&c.Invocation)
	// An idle worker gets the call at once, without waking writeQueued. Frames for a busy one are
	// written together.
	if !idle || queued || !w.out.tryWrite(w.Process.Conn) {
		w.wake.raise()
	}
	return true
}

// NotifyAt makes the worker call Changed once when it has taken n calls.
func (w *Worker) NotifyAt(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notifyAt = n; w.taken >= n {
		w.notifyAt = 0
		w.group.cfg.Changed()
	}
}

// CallCounts returns how many calls the worker has taken, and how many it has answered.
func (w *Worker) CallCounts() (taken, answered int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken, w.answers
}

// InFlight returns the number of unanswered calls.
func (w *Worker) InFlight() int64 { return w.inFlight.Load() }

// EachCall calls do for each call in flight, with a lock held.
func (w *Worker) EachCall(do func(*Call)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c != nil {
			do(c)
		}
	}
}

// IsUsable reports whether the worker has loaded the code and takes calls.
func (w *Worker) IsUsable() bool {
	select {
	case <-w.Loaded:
	default:
		return false
	}
	select {
	case <-w.Gone:
		return false
	default:
		return w.Ready != nil && !w.retiring.Load()
	}
}

// IsFinished reports whether the worker has ended or is retiring.
func (w *Worker) IsFinished() bool {
	select {
	case <-w.Gone:
		return true
	default:
		return w.retiring.Load()
	}
}

// IsRetiring reports whether Retire was called.
func (w *Worker) IsRetiring() bool { return w.retiring.Load() }

// Retire stops the worker from taking further calls. It returns false if it was already retiring.
func (w *Worker) Retire() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.retiring.CompareAndSwap(false, true)
}

// queueFrame queues a small frame.
func (w *Worker) queueFrame(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.bytes = append(w.out.bytes, frame...)
	w.wake.raise()
}

// Kill ends the worker for a reason that its calls did not cause: they run again.
func (w *Worker) Kill(cause process.Cause, why error) {
	w.mu.Lock()
	if w.why == nil && !w.dead {
		w.why, w.whose = why, cause
	}
	w.mu.Unlock()
	w.Process.Signal(syscall.SIGKILL)
	if conn, ok := w.Process.Conn.(*net.UnixConn); ok {
		_ = conn.CloseRead() // a stopped process does not close its own end
	}
}

// KillFor ends the worker because a call ignored its cancellation.
func (w *Worker) KillFor(c *Call, why error) {
	w.mu.Lock()
	w.disobeyed = c
	w.mu.Unlock()
	w.Kill(process.CauseTimeout, why)
}
