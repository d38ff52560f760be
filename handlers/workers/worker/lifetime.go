package worker

import (
	"errors"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// drainGrace is how long a worker has to end that has nothing in flight: two seconds
	// for what its app does at the end, and one to end.
	drainGrace = 3 * time.Second
	// stopGrace is how long a stopped worker has to end, before SIGTERM, and
	// then again before SIGKILL.
	stopGrace = 2 * time.Second
)

// Begin starts the handshake, as with a worker or as with a template. It is
// called once. If it fails the process is killed.
func (w *Worker) Begin(template bool) error {
	if template {
		w.forked = make(chan protocol.ForkedFrame, 1)
	}
	var err error
	w.out.bytes, err = protocol.AppendJSON(nil, protocol.Hello, w.group.hello())
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

// Wait returns when the worker is gone and nothing serves it any more.
func (w *Worker) Wait() { w.done.Wait() }

// writeQueued writes what is queued, all of it at once, until the worker is gone.
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
		w.out = spare
		w.mu.Unlock()
		if batch.writeTo(w.Process.Conn) != nil {
			return // read sees it too
		}
		spare = batch.emptied()
	}
}

// Stop has the worker finish and end: by a DRAIN, then by SIGTERM, then by SIGKILL. It
// returns when the worker is gone.
func (w *Worker) Stop() {
	w.send(protocol.AppendDrain(nil))
	select {
	case <-w.Loaded:
	default:
		w.Process.Signal(syscall.SIGTERM) // it loads code, and does not listen
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
