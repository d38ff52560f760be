// Package worker is one worker process as its pool uses it: the handshake, the frames of
// docs/worker-protocol.md in both directions, the calls in flight, and the end.
//
// A pool has a Group, and gives each process that it starts to the group's New. From
// Handshake on two goroutines serve a worker, one that reads and one that writes; both
// end when the worker is gone. The methods of a Worker may be called from any goroutine,
// unless they say otherwise. They do not wait for the worker, but for Stop, Fork and Stacks.
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

// Worker is one process and what is in flight in it.
type Worker struct {
	Process *process.Process
	Log     *slog.Logger
	Started time.Time

	Handshake

	// Gone is closed when the worker can take no more. From then on Reason and Cause
	// are set.
	Gone   chan struct{}
	Reason error
	Cause  process.Cause

	group    *Group
	forked   chan protocol.ForkedFrame // what a template answers to FORK; nil of a worker that is none
	retiring atomic.Bool               // it takes no more; set with mu held
	inFlight atomic.Int64

	inForce
	heartbeat heartbeat

	mu sync.Mutex
	guarded

	askStacks sync.Once
	stacks    string // of its threads, once it was asked for them

	wake signal // something to write
	done sync.WaitGroup
}

// signal wakes the one who receives from it. It has room for 1.
type signal chan struct{}

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Handshake is what a worker has answered until it is ready.
type Handshake struct {
	// Loaded is closed when the worker has answered LOAD. From then on Ready or Failed
	// is set, and Welcome, its answer to HELLO.
	Loaded  chan struct{}
	Welcome *protocol.WelcomeFrame
	Ready   *protocol.ReadyFrame
	Failed  *protocol.FailedFrame
}

// Can reports whether the worker has a capability. It is called after Loaded is closed.
func (h *Handshake) Can(what string) bool { return slices.Contains(h.Welcome.Capabilities, what) }

// sharesLoop reports whether calls share the worker's event loop. Where they come one after
// the other, one that keeps it is no news.
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

// guarded is what the worker's mu guards.
type guarded struct {
	out   outgoing
	calls []*Call // by the number of the invocation
	free  []uint32
	sums  []Measures // by function
	lost  lostTime

	taken    int // calls
	notifyAt int // so many are to be reported; 0 is never
	answers  int

	dead      bool
	why       error         // why it is to be killed, if the daemon does it
	whose     process.Cause // the same in a word
	disobeyed *Call         // the last call for which it was killed
}

// inForce are the settings that a worker was sent last.
type inForce struct {
	applying   sync.Mutex // held from the reading of settings until they are sent
	threads    atomic.Int64
	loadedWith atomic.Int64 // the threads that it had when it loaded the code
	threaded   atomic.Int64 // how many async functions run in them
	extra      atomic.Int64 // messages queued beyond those that run
}

// New returns a worker that nothing was sent yet.
func (g *Group) New(proc *process.Process) *Worker {
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

// Submit queues a call. It reports false if the worker is gone, or going.
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
	w.inFlight.Add(1)
	if w.taken++; w.notifyAt > 0 && w.taken >= w.notifyAt {
		w.notifyAt = 0
		w.group.cfg.Changed()
	}
	c.ID, c.submitted = id, time.Now()
	c.stood = w.lost.soFar(c.submitted)
	w.out.invoke(&c.Invocation)
	w.wake.raise()
	return true
}

// NotifyAt has Changed called, once, when the worker has taken n calls.
func (w *Worker) NotifyAt(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notifyAt = n; w.taken >= n {
		w.notifyAt = 0
		w.group.cfg.Changed()
	}
}

// Calls returns how many calls the worker has taken, and how many it has answered.
func (w *Worker) Calls() (taken, answered int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken, w.answers
}

// InFlight is the number of calls that the worker has not answered.
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

// Usable reports whether the worker has loaded the code and takes calls.
func (w *Worker) Usable() bool {
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

// Finished reports whether the worker takes no more calls.
func (w *Worker) Finished() bool {
	select {
	case <-w.Gone:
		return true
	default:
		return w.retiring.Load()
	}
}

// Retiring reports whether Retire was called.
func (w *Worker) Retiring() bool { return w.retiring.Load() }

// Retire has the worker take no more calls. It reports false if it took none already.
func (w *Worker) Retire() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.retiring.CompareAndSwap(false, true)
}

// send queues a frame of a few bytes.
func (w *Worker) send(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.bytes = append(w.out.bytes, frame...)
	w.wake.raise()
}

// Kill ends the worker for a reason that is no fault of its calls: they run again.
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

// KillFor ends the worker since a call has not obeyed its cancellation.
func (w *Worker) KillFor(c *Call, why error) {
	w.mu.Lock()
	w.disobeyed = c
	w.mu.Unlock()
	w.Kill(process.CauseTimeout, why)
}
