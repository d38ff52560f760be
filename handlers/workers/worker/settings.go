package worker

import (
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// ApplySettings sends the current settings to the worker if it has others. If the worker has not
// loaded the code yet, it does nothing: they are applied after that. It may be called from any
// goroutine. It reads and sends the settings in one step. Otherwise a call that read earlier could
// send later, and the worker would keep outdated settings.
func (w *Worker) ApplySettings() {
	if !w.IsUsable() || !w.HasCapability(protocol.CanSettings) {
		return
	}
	w.applying.Lock()
	defer w.applying.Unlock()
	s := w.group.cfg.Settings()
	if int(w.threads.Load()) == s.Threads && int(w.threaded.Load()) == len(s.Threaded) {
		return
	}
	frame, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{Threads: s.Threads, Coroutines: s.Coroutines, Threaded: s.Threaded})
	if err != nil {
		return // cannot fail: the frame is small
	}
	// A worker with one thread may run a sync call in the thread that reads, so it applies the
	// settings when that call has ended. More calls would wait there until then.
	if w.inForce.Load() > 1 || s.Threads == 1 || w.inFlight.Load() == 0 || hasAsync(w.Ready) {
		w.inForce.Store(int64(s.Threads))
	}
	w.threads.Store(int64(s.Threads))
	w.threaded.Store(int64(len(s.Threaded)))
	w.queueFrame(frame)
}

// hasAsync reports whether some functions of a worker are async. Then no call runs in the thread that
// reads.
func hasAsync(ready *protocol.ReadyFrame) bool {
	for _, f := range ready.Functions {
		if f.Kind == "async" {
			return true
		}
	}
	return false
}

// confirmSettings counts the threads that were sent last, after a call has ended: by then the worker
// has read the settings.
func confirmSettings(w *Worker) {
	if threads := w.threads.Load(); w.inForce.Load() != threads {
		w.inForce.Store(threads)
		w.group.cfg.RoomChanged()
	}
}

// RevokeUnstarted makes the worker answer the unstarted calls of some functions with "not tried".
// They run again.
func (w *Worker) RevokeUnstarted(functions ...uint16) {
	if !w.IsUsable() || !w.HasCapability(protocol.CanSettings) {
		return
	}
	w.applying.Lock()
	defer w.applying.Unlock()
	frame, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{
		Threads: int(w.threads.Load()), Coroutines: w.group.cfg.Settings().Coroutines, Revoked: functions,
	})
	if err != nil {
		return // cannot fail: the frame is small
	}
	w.queueFrame(frame)
}

// SlotCounts returns the worker's threads, and how many calls it takes beyond those that run, to
// hide the round trip.
func (f *appliedSettings) SlotCounts() (threads, extra int) {
	return int(f.inForce.Load()), int(f.extra.Load())
}

// LoadedWith returns the number of threads with which the worker loaded the code.
func (f *appliedSettings) LoadedWith() (threads int) { return int(f.loadedWith.Load()) }
