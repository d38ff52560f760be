// Package driver runs one worker process and speaks the wire protocol with it, as docs/worker-protocol.md
// defines it. Only the checks of the conformance suite call it. A Worker belongs to the goroutine of its
// check; only SendBehind writes from another one.
//
// Each frame from the worker is checked against the rules that hold at any time. When a worker breaks
// one, the method that was called panics with a Violation; the suite recovers it, and the check has failed.
package driver

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// MaxFrame is the limit that HELLO announces, in bytes. It is small, so that frames of that size are cheap.
const MaxFrame = 2 << 20

// Worker is one worker process, and the frames to it and from it.
type Worker struct {
	Announced []string // the capabilities that HELLO announced to it
	Process   *Process // nil before Start
	Received           // the frames that it has sent so far
	Sender             // sends frames to it

	ctx    context.Context // of the check
	rule   string          // the rule that the check tests
	limit  time.Duration   // of the check
	reaper *childproc.Reaper
	parser *protocol.Parser
	unbind func() bool
	forks  []*Worker // forked from this one
	given  []uint64  // of a forked worker: the inodes of its socket and outputs
}

// Received holds the frames that a worker has sent. A check may reset Logs.
type Received struct {
	Welcome *protocol.WelcomeFrame // nil before WELCOME
	Ready   *protocol.ReadyFrame   // nil before READY
	Logs    []protocol.LogFrame
	Stats   []protocol.StatsFrame // those of an event loop
	Beats   int                   // the number of ALIVE frames
	Imports []string              // the paths of all IMPORTED; nil before the first
}

// Violation is a violation found by a check: Why names the event, Wanted the expectation, and Rule the
// sentence of docs/worker-protocol.md that requires it.
type Violation struct{ Rule, Why, Wanted string }

// New returns a Worker without a process. limit bounds each check; it appears only in messages.
func New(reaper *childproc.Reaper, limit time.Duration) *Worker {
	return &Worker{reaper: reaper, limit: limit}
}

// Fail ends the check: why happened instead of wanted. It panics with a Violation of the check's rule.
func (w *Worker) Fail(why, wanted string) { w.FailBy(w.rule, why, wanted) }

// FailBy is Fail with another rule than the check's.
func (w *Worker) FailBy(rule, why, wanted string) {
	panic(Violation{Rule: rule, Why: why, Wanted: wanted})
}

// BeginCheck begins a check of a rule, in the running process if there is one. The end of ctx
// aborts reads and writes, until EndCheck.
func (w *Worker) BeginCheck(ctx context.Context, rule string) {
	w.ctx, w.rule, w.Logs = ctx, rule, nil
	w.log.clear()
	if w.Process != nil {
		conn := w.Process.conn
		w.unbind = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // an error shows at the next use
	}
}

// Done returns a channel that is closed when the check's time is over.
func (w *Worker) Done() <-chan struct{} { return w.ctx.Done() }

// EndCheck ends the check begun by BeginCheck, and leaves the process running.
func (w *Worker) EndCheck() {
	if w.unbind != nil {
		w.unbind()
	}
}

// Start starts the worker's process, without sending anything.
func (w *Worker) Start(command childproc.Command) {
	p, err := startProcess(w.reaper, command)
	if err != nil {
		w.FailBy("", err.Error(), "the command to start")
	}
	w.connectTo(p)
}

// connectTo connects the Worker to a running process.
func (w *Worker) connectTo(p *Process) {
	w.Process, w.conn, w.parser = p, p.conn, protocol.NewParser(MaxFrame)
	deadline, _ := w.ctx.Deadline()
	_ = p.conn.SetDeadline(deadline) // an error shows at the next use
}

// Kill kills the process and the workers forked from it, and waits until they have ended.
func (w *Worker) Kill() {
	if w.Process != nil {
		w.Process.kill()
	}
	for _, fork := range w.forks { // they are children of the reaper, which collects them even after the end of their template
		fork.Kill()
	}
}

// KillAlone kills the process, but not those forked from it. It waits until the process has ended.
func (w *Worker) KillAlone() {
	w.log.addSent("(it was killed)")
	w.Process.Signal(syscall.SIGKILL)
	_ = w.Process.conn.Close()
	if state := w.Process.waitFor(w.ctx); state == running {
		w.FailBy(RuleTwice, state+" after it was killed: its parent does not collect it", "it to be gone")
	}
}

// Close kills the running processes, and waits for them and for all writes.
func (w *Worker) Close() {
	w.Kill()
	w.writing.Wait()
}

// Transcript returns the latest frames in both directions, and the last lines of standard error,
// followed by those of the workers forked from this one.
func (w *Worker) Transcript() (sent, came, stderr []string) {
	sent, came = w.log.lines()
	if w.Process != nil {
		stderr = w.Process.lastLines()
	}
	for _, fork := range w.forks {
		prefixed := func(lines, more []string) []string {
			for _, line := range more {
				lines = append(lines, fmt.Sprintf("(process %d) %s", fork.Process.PID, line))
			}
			return lines
		}
		forkSent, forkCame, forkStderr := fork.Transcript()
		sent, came, stderr = prefixed(sent, forkSent), prefixed(came, forkCame), prefixed(stderr, forkStderr)
	}
	return sent, came, stderr
}
