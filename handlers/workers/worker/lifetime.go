package worker

import (
	"errors"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// drainGrace is how long a worker without calls may take to end: two seconds for its app's
	// cleanup, and one to end.
	drainGrace = 3 * time.Second
	// stopGrace is how long a worker may take to end after SIGTERM, before SIGKILL.
	stopGrace = 2 * time.Second
)

// BeginHandshake starts the handshake with a worker or a template. It is called once. If it fails,
// it kills the process.
func (w *Worker) BeginHandshake(template bool) error {
	if template {
		w.forked = make(chan protocol.ForkedFrame, 1)
	}
	var err error
	w.out.bytes, err = protocol.AppendJSON(nil, protocol.Hello, w.group.helloFrame())
	if err != nil {
		w.Process.Signal(syscall.SIGKILL)
		<-w.Process.Ended()
		return errors.Join(err, w.Process.Conn.Close())
	}
	w.group.addWorker(w)
	w.wake.raise()
	w.done.Go(func() { writeQueued(w) })
	r := reader{Worker: w}
	w.done.Go(r.run)
	return nil
}

// Wait returns when the worker has ended and its goroutines have returned.
func (w *Worker) Wait() { w.done.Wait() }

// writeQueued writes queued frames in batches until the worker has ended.
func writeQueued(w *Worker) {
	var spare outgoing
	for {
		select {
		case <-w.wake:
		case <-w.Gone:
			return
		}
		w.mu.Lock()
		batch := w.out
		w.out, w.writing = spare, true
		w.mu.Unlock()
		if batch.writeTo(w.Process.Conn) != nil {
			return // the reader detects it too
		}
		spare = batch.reuseBuffers()
		w.mu.Lock()
		w.writing = false
		w.mu.Unlock()
	}
}

// Stop stops the worker: with a DRAIN, then with SIGTERM, then with SIGKILL. It returns when the
// worker has ended.
func (w *Worker) Stop() {
	w.queueFrame(protocol.AppendDrain(nil))
	select {
	case <-w.Loaded:
	default:
		w.Process.Signal(syscall.SIGTERM) // it is loading code, and does not read frames
	}
	wait := drainGrace
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		limit := time.NewTimer(wait)
		wait = stopGrace
		select {
		case <-w.Gone:
			limit.Stop()
			w.done.Wait()
			return
		case <-limit.C:
			w.Process.Signal(signal)
		}
	}
	w.Kill(process.CauseExit, errors.New("the worker did not end after SIGTERM"))
	w.done.Wait()
}
