package worker

import (
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// ApplySettings sends the worker the settings in force, if it has others. Before the worker
// has loaded the code it does nothing: the settings are applied when it has. It may be called
// from any goroutine. Each reads the settings and sends them in one step. Otherwise one that
// read earlier could send later, and the worker would keep settings that are not in force.
func (w *Worker) ApplySettings() {
	if !w.Usable() || !w.Can(protocol.CanSettings) {
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
		return // a frame of some bytes
	}
	w.threads.Store(int64(s.Threads))
	w.threaded.Store(int64(len(s.Threaded)))
	w.send(frame)
}

// RevokeUnstarted has the worker answer the calls of a function that it has not started
// with "not tried". They run again.
func (w *Worker) RevokeUnstarted(function uint16) {
	if !w.Usable() || !w.Can(protocol.CanSettings) {
		return
	}
	w.applying.Lock()
	defer w.applying.Unlock()
	frame, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{
		Threads: int(w.threads.Load()), Coroutines: w.group.cfg.Settings().Coroutines, Away: []uint16{function},
	})
	if err != nil {
		return // a frame of some bytes
	}
	w.send(frame)
}

// Room returns the worker's threads, and how many calls it takes beyond those that run, to
// hide the way to it and back.
func (f *inForce) Room() (threads, extra int) {
	return int(f.threads.Load()), int(f.extra.Load())
}

// LoadedWith is the number of threads that the worker had when it loaded the code.
func (f *inForce) LoadedWith() (threads int) { return int(f.loadedWith.Load()) }
