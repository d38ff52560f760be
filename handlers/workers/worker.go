package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// worker is one process and what is in flight in it.
type worker struct {
	pool    *Pool
	process *process
	log     *slog.Logger

	welcome *protocol.WelcomeFrame // its answer to HELLO; read's own until loaded is closed

	loaded chan struct{} // closed when it answered LOAD; ready or failed is set
	ready  *protocol.ReadyFrame
	failed *protocol.FailedFrame

	gone   chan struct{} // closed when it can take no more
	reason error         // why; read after gone is closed, as is cause
	cause  Cause

	retiring atomic.Bool // it takes no more; set with mu held
	leaving  bool        // and is being stopped; the reconciler's, as is noted
	noted    bool        // its start-up was

	inFlight atomic.Int64
	extra    atomic.Int64  // messages queued beyond those that run
	average  time.Duration // of a call, lately; read's own

	mu    sync.Mutex
	out   []byte // frames to be written
	calls []*call
	free  []uint32
	dead  bool
	why   error // why it is to be killed, if we do it
	whose Cause // the same in a word

	wake chan struct{} // something to write
	done sync.WaitGroup
}

// call is one invocation in flight. Its replies go to the channel if there is
// one, else to the sink: the worker's answer, once, and before it, perhaps, that
// ctx ended.
type call struct {
	protocol.Invocation
	ctx     context.Context
	handler *Handler
	given   bool // that ctx ended was told; guarded by the worker's mu, as is reply
	to      handlers.Sink
	reply   chan reply
}

var calls = sync.Pool{New: func() any { return new(call) }}

func newCall(ctx context.Context, h *Handler, m *triggers.Message) *call {
	c := calls.Get().(*call)
	*c = call{ctx: ctx, handler: h}
	c.Function, c.Message = h.index, m
	c.Deadline, _ = ctx.Deadline()
	return c
}

// put gives back a call that nobody holds any more.
func (c *call) put() {
	*c = call{}
	calls.Put(c)
}

// replied hands a reply on; it does not wait.
func (c *call) replied(w *worker, r reply) {
	switch {
	case c.reply != nil:
		c.reply <- r
	case r.lost == nil && !r.giveUp:
		to := c.to
		c.put()
		to.Handled(r.outcome())
	default:
		c.reply = make(chan reply, 1)
		go func() {
			output, err := c.handler.await(w, c, r)
			c.to.Handled(c.handler.insistOn(c.ctx, c.Message, output, err))
		}()
	}
}

// reply ends a call: the worker's answer, or what became of the worker.
type reply struct {
	status  protocol.Status
	payload []byte
	lost    error // the worker is gone, and this is how
	again   bool  // by no fault of the calls that were in flight
	alone   bool  // nothing else was in flight
	giveUp  bool  // no answer yet: ctx ended, and the worker was told
}

// startWorker starts a process and greets it. It is usable when loaded is closed
// and ready is set.
func (p *Pool) startWorker() (*worker, error) {
	proc, err := p.spawner.start(p.cfg.Command, p.log)
	if err != nil {
		return nil, err
	}
	w := &worker{
		pool:    p,
		process: proc,
		log:     p.log.With("worker", proc.pid),
		loaded:  make(chan struct{}),
		gone:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
	}
	w.out, err = protocol.AppendJSON(nil, protocol.Hello, p.hello())
	if err != nil {
		proc.kill(syscall.SIGKILL)
		<-proc.waited
		return nil, errors.Join(err, proc.conn.Close())
	}
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

// retire has the worker take no more.
func (w *worker) retire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retiring.Store(true)
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
	c.ID = id
	w.out = protocol.AppendInvoke(w.out, &c.Invocation)
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
			w.out = protocol.AppendCancel(w.out, c.ID)
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
	w.out = append(w.out, frame...)
	w.wakeUp()
}

// maxSpare is the largest buffer that is kept for the next batch, in bytes.
const maxSpare = 1 << 20

// write writes what is queued, all of it at once, until the worker is gone.
func (w *worker) write() {
	var spare []byte
	for {
		select {
		case <-w.wake:
		case <-w.gone:
			return
		}
		w.mu.Lock()
		batch := w.out
		w.out = spare[:0]
		w.mu.Unlock()
		if len(batch) > 0 {
			if _, err := w.process.conn.Write(batch); err != nil {
				return // read sees it too
			}
		}
		if spare = batch; cap(spare) > maxSpare {
			spare = nil
		}
	}
}

// read takes the worker's frames until it is gone, and then ends what was in
// flight in it.
func (w *worker) read() {
	err := w.readFrames()
	w.mu.Lock()
	w.dead = true
	lost := make([]*call, 0, len(w.calls))
	for _, c := range w.calls {
		if c != nil {
			lost = append(lost, c)
		}
	}
	w.calls = nil
	why, whose := w.why, w.whose
	w.mu.Unlock()

	// Gone is gone: one whose socket broke is of no use, though it may live.
	if errors.Is(err, protocol.ErrProtocol) {
		w.log.Error("worker killed", "error", err)
	}
	_ = w.process.conn.Close() // it is broken already, or about to be
	if why == nil && !errors.Is(err, protocol.ErrProtocol) {
		// It closed its socket: mostly since it is ending by itself.
		select {
		case <-w.process.waited:
		case <-time.After(outputGrace):
		}
	}
	w.process.kill(syscall.SIGKILL)
	<-w.process.waited
	switch {
	case why != nil:
		w.reason, w.cause = why, whose
	case errors.Is(err, protocol.ErrProtocol):
		w.reason, w.cause = fmt.Errorf("the worker process was killed: %w", err), CauseProtocol
	default:
		w.cause = w.process.cause
		w.reason = &handlers.Failure{Summary: "the worker process died: " + w.process.state, Detail: w.process.lastWords()}
	}
	w.inFlight.Store(0)
	close(w.gone)
	for _, c := range lost {
		c.replied(w, reply{lost: w.reason, again: why != nil, alone: len(lost) == 1})
	}
	w.pool.nudge()
}

func (w *worker) readFrames() error {
	p := protocol.NewParser(w.pool.cfg.MaxFrame)
	for {
		n, err := w.process.conn.Read(p.Space())
		p.Took(n)
		for {
			kind, payload, frameErr := p.Next()
			if frameErr != nil {
				return frameErr
			}
			if kind == 0 {
				break
			}
			if err := w.frame(kind, payload); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// frame takes one frame. Each has its time: WELCOME, READY or FAILED, and then
// all others.
func (w *worker) frame(kind protocol.Kind, payload []byte) error {
	welcomed, answered := w.welcome != nil, false
	select {
	case <-w.loaded:
		answered = true
	default:
	}
	switch {
	case kind == protocol.Welcome && !welcomed:
		return w.welcomed(payload)
	case kind == protocol.Log && welcomed:
		return w.logLine(payload)
	case (kind == protocol.Ready || kind == protocol.Failed) && welcomed && !answered:
		return w.answered(kind, payload)
	case kind == protocol.Result && answered:
		return w.result(payload)
	case kind == protocol.Stats && answered:
		return w.stats(payload)
	}
	return fmt.Errorf("%w: a %v, which it may not send now", protocol.ErrProtocol, kind)
}

// welcomed has the worker load the code, if it is one for us.
func (w *worker) welcomed(payload []byte) error {
	w.welcome = new(protocol.WelcomeFrame)
	if err := protocol.Decode(protocol.Welcome, payload, w.welcome); err != nil {
		return err
	}
	if why := w.pool.unfit(w.welcome); why != "" {
		w.failed = &protocol.FailedFrame{Summary: why}
		w.settled()
		w.kill(CauseStart, errors.New(why))
		return nil
	}
	frame, err := protocol.AppendJSON(nil, protocol.Load, w.pool.load())
	if err != nil {
		return err
	}
	w.send(frame)
	return nil
}

// answered takes what became of the loading.
func (w *worker) answered(kind protocol.Kind, payload []byte) error {
	if kind == protocol.Failed {
		failed := new(protocol.FailedFrame)
		if err := protocol.Decode(kind, payload, failed); err != nil {
			return err
		}
		w.failed = failed
	} else {
		ready := new(protocol.ReadyFrame)
		if err := protocol.Decode(kind, payload, ready); err != nil {
			return err
		}
		if got, want := len(ready.Functions), len(w.pool.cfg.Functions); got != want {
			return fmt.Errorf("%w: it was asked for %d functions and has %d", protocol.ErrProtocol, want, got)
		}
		w.ready = ready
	}
	w.settled()
	return nil
}

func (w *worker) settled() {
	close(w.loaded)
	w.pool.nudge()
}

// can reports whether the worker said that it can do something; it is to be
// called when loaded is closed.
func (w *worker) can(what string) bool { return slices.Contains(w.welcome.Capabilities, what) }

func (w *worker) result(payload []byte) error {
	answer, err := protocol.ReadResult(payload)
	if err != nil {
		return err
	}
	r := reply{status: answer.Status}
	if len(answer.Payload) > 0 {
		r.payload = append([]byte(nil), answer.Payload...)
	}
	w.mu.Lock()
	var c *call
	if int(answer.ID) < len(w.calls) {
		c = w.calls[answer.ID]
	}
	if c == nil {
		w.mu.Unlock()
		return fmt.Errorf("%w: an answer to invocation %d, which it does not have", protocol.ErrProtocol, answer.ID)
	}
	w.calls[answer.ID] = nil
	w.free = append(w.free, answer.ID)
	w.mu.Unlock()
	w.inFlight.Add(-1)
	c.replied(w, r)
	w.measured(answer.Took)
	return nil
}

// measured follows how long calls take, and sets the room for those that are
// queued when that has changed by much.
func (w *worker) measured(took time.Duration) {
	w.average += (took - w.average) / 8
	if w.average == 0 || took > 8*w.average {
		w.average = took // what was fast has become slow: queue no more behind it
	}
	have, want := w.extra.Load(), int64(extraFor(w.average, w.pool.cfg.Threads))
	if want > 2*have || want < have/2 || want == 0 && have > 0 {
		w.extra.Store(want)
		w.pool.resize()
	}
}

// logLine logs what a function printed or logged.
func (w *worker) logLine(payload []byte) error {
	var line protocol.LogFrame
	if err := protocol.Decode(protocol.Log, payload, &line); err != nil {
		return err
	}
	var level slog.Level
	switch line.Level {
	case "DEBUG", "NOTSET":
		level = slog.LevelDebug
	case "WARNING", "WARN":
		level = slog.LevelWarn
	case "ERROR", "CRITICAL", "FATAL":
		level = slog.LevelError
	}
	if !w.log.Enabled(context.Background(), level) {
		return nil
	}
	attrs := []slog.Attr{slog.String("logger", line.Logger)}
	w.mu.Lock()
	if line.ID >= 0 && line.ID < int64(len(w.calls)) && w.calls[line.ID] != nil {
		c := w.calls[line.ID]
		attrs = append(attrs, slog.String("function", c.handler.name), slog.String("message", c.Message.ID))
	}
	w.mu.Unlock()
	w.log.LogAttrs(context.Background(), level, line.Text, attrs...)
	return nil
}

// stats hands on what a worker measured.
func (w *worker) stats(payload []byte) error {
	var s protocol.StatsFrame
	if err := protocol.Decode(protocol.Stats, payload, &s); err != nil {
		return err
	}
	if w.pool.cfg.Lagged == nil {
		return nil
	}
	for lag := range s.Waits() {
		w.pool.cfg.Lagged(lag)
	}
	return nil
}

// kill ends the worker for a reason that is no fault of what is in flight in it.
func (w *worker) kill(whose Cause, why error) {
	w.mu.Lock()
	if w.why == nil && !w.dead {
		w.why, w.whose = why, whose
	}
	w.mu.Unlock()
	w.process.kill(syscall.SIGKILL)
	if conn, ok := w.process.conn.(*net.UnixConn); ok {
		_ = conn.CloseRead() // a stopped process does not close its own end
	}
}

// stop asks the worker to finish and end, and makes it after a while.
func (w *worker) stop(grace time.Duration) {
	w.send(protocol.AppendDrain(nil))
	select {
	case <-w.loaded:
	default:
		w.process.kill(syscall.SIGTERM) // it loads code, and does not listen
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		limit := time.NewTimer(grace)
		select {
		case <-w.gone:
			limit.Stop()
			w.done.Wait()
			return
		case <-limit.C:
			w.process.kill(signal)
		}
	}
	w.kill(CauseExit, errors.New("the worker did not end when it was told to"))
	w.done.Wait()
}
