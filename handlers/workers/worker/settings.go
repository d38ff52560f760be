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
	w.threads.Store(int64(s.Threads))
	w.threaded.Store(int64(len(s.Threaded)))
	w.queueFrame(frame)
}

// RevokeUnstarted makes the worker answer the unstarted calls of a function with "not tried".
// They run again.
func (w *Worker) RevokeUnstarted(function uint16) {
	if !w.IsUsable() || !w.HasCapability(protocol.CanSettings) {
		return
	}
	w.applying.Lock()
	defer w.applying.Unlock()
	frame, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{
		Threads: int(w.threads.Load()), Coroutines: w.group.cfg.Settings().Coroutines, Revoked: []uint16{function},
	})
	if err != nil {
		return // cannot fail: the frame is small
	}
	w.queueFrame(frame)
}

// SlotCounts returns the worker's threads, and how many calls it takes beyond those that run, to
// hide the round trip.
func (f *appliedSettings) SlotCounts() (threads, extra int) {
	return int(f.threads.Load()), int(f.extra.Load())
}

// LoadedWith returns the number of threads with which the worker loaded the code.
func (f *appliedSettings) LoadedWith() (threads int) { return int(f.loadedWith.Load()) }
