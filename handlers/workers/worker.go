package workers

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// worker is one process and what is in flight in it.
type worker struct {
	pool    *Pool
	process *process.Process
	log     *slog.Logger

	begun   time.Time              // when it was started
	welcome *protocol.WelcomeFrame // its answer to HELLO; read's own until loaded is closed

	loaded chan struct{} // closed when it answered LOAD; ready or failed is set
	ready  *protocol.ReadyFrame
	failed *protocol.FailedFrame

	forked chan protocol.ForkedFrame // what a template answers to FORK; nil of a worker that is none

	gone   chan struct{} // closed when it can take no more
	reason error         // why; read after gone is closed, as is cause
	cause  process.Cause

	retiring atomic.Bool // it takes no more; set with mu held
	unwanted atomic.Bool // it is to be replaced
	leaving  bool        // and is being stopped; the reconciler's, as is noted
	noted    bool        // its start-up was
	wear     wear

	inFlight atomic.Int64
	threads  atomic.Int64  // that it was told to have
	born     atomic.Int64  // the threads that it had when it loaded the code
	threaded atomic.Int64  // how many async functions it was told to run in them
	extra    atomic.Int64  // messages queued beyond those that run
	average  time.Duration // of a call, lately; read's own

	heard   time.Time // when it was read from last; read's own, as is
	answers int       // how many calls it has answered; read after gone is closed

	alive  atomic.Int64 // when it sent something last, in ns since birth
	silent atomic.Bool  // it has been reported for sending nothing
	// The watch's own: when its threads were looked at, what they did, and since when
	// they do nothing.
	looked, stuckSince time.Time
	state              process.Threads

	mu    sync.Mutex
	sums  []Measures
	out   outgoing
	calls []*call
	free  []uint32
	dead  bool
	block *block // of its event loop, that is under way
	// stood is how long its calls could not run, all blocks that are over together, and
	// disobeyed the last call for which it was killed.
	stood     time.Duration
	disobeyed *call
	why       error         // why it is to be killed, if we do it
	whose     process.Cause // the same in a word

	stacks stacks

	wake chan struct{} // something to write
	done sync.WaitGroup
}

// startWorker starts a process, or forks one from the template, and greets it. It
// is usable when loaded is closed and ready is set.
func (p *Pool) startWorker() (*worker, error) {
	p.mu.Lock()
	template := p.template
	p.mu.Unlock()
	var proc *process.Process
	var err error
	if template != nil {
		proc, err = p.starter.Fork(template.process, template.fork)
	} else {
		proc, err = p.starter.Start()
	}
	if err != nil {
		return nil, err
	}
	return p.greet(proc, false)
}

// greet begins to talk with a process.
func (p *Pool) greet(proc *process.Process, template bool) (*worker, error) {
	w := &worker{
		pool:    p,
		process: proc,
		log:     p.log.With("worker", proc.PID),
		begun:   time.Now(),
		loaded:  make(chan struct{}),
		gone:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		wear:    newWear(p.cfg.Recycle),
	}
	if template {
		w.forked = make(chan protocol.ForkedFrame, 1)
	}
	var err error
	w.out.bytes, err = protocol.AppendJSON(nil, protocol.Hello, p.hello())
	if err != nil {
		proc.Signal(syscall.SIGKILL)
		<-proc.Ended()
		return nil, errors.Join(err, proc.Conn.Close())
	}
	p.measures(w)
	w.wakeUp()
	w.done.Go(w.write)
	w.done.Go(w.read)
	return w, nil
}

func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// retire has the worker take no more. It reports false if it took none already.
func (w *worker) retire() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.retiring.CompareAndSwap(false, true)
}

// submit queues an invocation. It reports false if the worker is gone, or going.
func (w *worker) submit(c *call) bool {
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
	if w.wear.take() {
		w.pool.nudge()
	}
	c.ID, c.submitted = id, time.Now()
	c.stood = w.lostTime(c.submitted)
	w.out.invoke(&c.Invocation)
	w.wakeUp()
	return true
}

// giveUp tells the calls whose context ended, and cancels them in the worker. It
// reports whether anything is in flight.
func (w *worker) giveUp(now time.Time) (busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c == nil {
			continue
		}
		busy = true
		late := !c.Deadline.IsZero() && !now.Before(c.Deadline)
		if c.given || !late && c.ctx.Err() == nil {
			continue
		}
		c.given = true
		if w.can(protocol.CanCancel) {
			w.out.bytes = protocol.AppendCancel(w.out.bytes, c.ID)
			w.wakeUp()
		}
		c.replied(w, reply{giveUp: true})
	}
	return busy
}

// send queues a frame of a few bytes.
func (w *worker) send(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.bytes = append(w.out.bytes, frame...)
	w.wakeUp()
}

// write writes what is queued, all of it at once, until the worker is gone.
func (w *worker) write() {
	var spare outgoing
	for {
		select {
		case <-w.wake:
		case <-w.gone:
			return
		}
		w.mu.Lock()
		batch := w.out
		w.out = spare
		w.mu.Unlock()
		if batch.write(w.process.Conn) != nil {
			return // read sees it too
		}
		spare = batch.emptied()
	}
}

// read takes the worker's frames until it is gone, and then ends what was in
// flight in it.
func (w *worker) read() {
	err := w.readFrames()
	silent := w.quiet(time.Now())
	w.mu.Lock()
	w.dead = true
	lost := make([]*call, 0, len(w.calls))
	for _, c := range w.calls {
		if c != nil {
			lost = append(lost, c)
		}
	}
	why, whose, block := w.why, w.whose, w.block
	var culprit *call
	var blames error
	if now := time.Now(); block != nil {
		w.over(block, now)
		for _, c := range lost {
			if block.by(c) && why != nil {
				culprit, blames = c, block.blames(why, now)
			}
		}
		w.block = nil
	}
	w.calls = nil
	w.mu.Unlock()
	if block != nil {
		w.pool.noteBlock(w, block, time.Now())
	}

	// Gone is gone: one whose socket broke is of no use, though it may live.
	if errors.Is(err, protocol.ErrProtocol) {
		w.log.Error("worker killed", "error", err)
	}
	_ = w.process.Conn.Close() // it is broken already, or about to be
	if why == nil && !errors.Is(err, protocol.ErrProtocol) {
		// It closed its socket: mostly since it is ending by itself.
		select {
		case <-w.process.Ended():
		case <-time.After(outputGrace):
		}
	}
	w.process.Signal(syscall.SIGKILL)
	select {
	case <-w.process.Ended():
	case <-w.unkillable(why != nil):
		w.log.Error("a worker was killed and does not end: it hangs in the kernel; its calls run elsewhere")
	}
	switch {
	case why != nil:
		w.reason, w.cause = why, whose
	case errors.Is(err, protocol.ErrProtocol):
		w.reason, w.cause = fmt.Errorf("the worker process was killed: %w", err), process.CauseProtocol
	default:
		var state string
		state, w.cause = w.process.HowEnded()
		w.reason = &handlers.Failure{Summary: "the worker process died: " + state, Detail: w.process.LastLines()}
	}
	suspect := why != nil && w.cause == process.CauseTimeout && culprit == nil && (block != nil || silent)
	w.inFlight.Store(0)
	w.pool.keepMeasures(w)
	close(w.gone)
	for _, c := range lost {
		r := reply{lost: w.reason, again: why != nil && w.cause != process.CauseHung || w.cause == process.CauseReaper, alone: len(lost) == 1, known: culprit != nil, suspect: suspect, outside: w.cause == process.CauseMemory || w.cause == process.CauseHung}
		if c == culprit {
			r.lost, r.culprit = blames, true
		}
		c.replied(w, r)
	}
	w.pool.nudge()
}

// outputGrace is how long a worker that closed its socket has to end by itself.
const outputGrace = time.Second

// killLimit is how long a worker that was killed may take to end. One that hangs in the
// kernel, as with a disk that is gone, does not: but it runs none of its code any more.
const killLimit = 2 * time.Second

// unkillable gets something when a worker that we killed has had time to end.
func (w *worker) unkillable(killed bool) <-chan time.Time {
	if !killed {
		return nil
	}
	return time.After(killLimit)
}

// kill ends the worker for a reason that is no fault of what is in flight in it.
func (w *worker) kill(whose process.Cause, why error) {
	w.mu.Lock()
	if w.why == nil && !w.dead {
		w.why, w.whose = why, whose
	}
	w.mu.Unlock()
	w.process.Signal(syscall.SIGKILL)
	if conn, ok := w.process.Conn.(*net.UnixConn); ok {
		_ = conn.CloseRead() // a stopped process does not close its own end
	}
}

// stop asks the worker to finish and end, and makes it after a while.
func (w *worker) stop(grace time.Duration) {
	w.send(protocol.AppendDrain(nil))
	select {
	case <-w.loaded:
	default:
		w.process.Signal(syscall.SIGTERM) // it loads code, and does not listen
	}
	wait := drainGrace
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		limit := time.NewTimer(wait)
		wait = grace
		select {
		case <-w.gone:
			limit.Stop()
			w.done.Wait()
			return
		case <-limit.C:
			w.process.Signal(signal)
		}
	}
	w.kill(process.CauseExit, errors.New("the worker did not end when it was told to"))
	w.done.Wait()
}
