package workers

import (
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Settings are how much runs at once.
type Settings struct {
	Processes  int `json:"processes"`
	Threads    int `json:"threads"`    // of each process: for functions that are not async, and for the executor of those that are
	Coroutines int `json:"coroutines"` // of each process: async calls at once
}

// Set changes the settings while the workers run; what is 0 stays as it is. What is
// running goes on: where there is to be less room, nothing new takes it. Threads change
// only in workers that can (Tunable), and in those that are started from now on.
func (p *Pool) Set(s Settings) {
	p.mu.Lock()
	now := p.settings
	if s.Threads > 0 {
		now.Threads = s.Threads
	}
	if s.Coroutines > 0 {
		now.Coroutines = s.Coroutines
	}
	p.settings = now
	workers := p.workers
	p.mu.Unlock()
	for _, w := range workers {
		w.set(now)
	}
	p.resize()
	if s.Processes > 0 {
		p.Scale(s.Processes)
	}
}

// Settings are those that were asked for last.
func (p *Pool) Settings() Settings {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.settings
	s.Processes = p.wanted
	return s
}

// Tunable reports whether threads can change while workers run; it is to be called
// after Ready.
func (p *Pool) Tunable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tunable
}

// set tells a worker of other settings, once it has loaded the code; before, it will
// be told when it has.
func (w *worker) set(s Settings) {
	if !w.usable() {
		return
	}
	threaded := w.pool.threadedNow()
	if int(w.threads.Load()) == s.Threads && int(w.threaded.Load()) == len(threaded) || !w.can(protocol.CanSettings) {
		return
	}
	frame, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{Threads: s.Threads, Coroutines: s.Coroutines, Threaded: threaded})
	if err != nil {
		return // a frame of some bytes
	}
	w.threads.Store(int64(s.Threads))
	w.threaded.Store(int64(len(threaded)))
	w.send(frame)
}

// Functions are the names of the functions, in the order of Config.Functions.
func (p *Pool) Functions() []string {
	out := make([]string, len(p.cfg.Functions))
	for i, f := range p.cfg.Functions {
		out[i] = f.Name
	}
	return out
}
