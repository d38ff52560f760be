package workers

import (
	"slices"
	"sync"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// settings are those of the workers, as they were asked for last.
type settings struct {
	mu  sync.Mutex
	now worker.Settings // of Threaded only the end changes
}

func (s *settings) current() worker.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// set changes what is not 0.
func (s *settings) set(threads, coroutines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if threads > 0 {
		s.now.Threads = threads
	}
	if coroutines > 0 {
		s.now.Coroutines = coroutines
	}
}

// runInThreads has an async function run in threads.
func (s *settings) runInThreads(index uint16) worker.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Threaded = append(s.now.Threaded, index)
	return s.now
}

// runOnLoop undoes that. It reports false if the function does not run in threads.
func (s *settings) runOnLoop(index uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.now.Threaded, index) {
		return false
	}
	s.now.Threaded = slices.DeleteFunc(slices.Clone(s.now.Threaded), func(i uint16) bool { return i == index })
	return true
}

// room is how many calls may be in flight, by the kind of function: the two do not take
// each other's.
type room struct {
	roster      *roster
	settings    *settings
	code        *code
	sync, async *handlers.Slots

	mu sync.Mutex // one resize at a time: the last one has the last numbers
}

// resize sets the room to what the ready workers have.
func (r *room) resize() {
	r.mu.Lock()
	defer r.mu.Unlock()
	members, wanted := r.roster.snapshot()
	settings := r.settings.current()
	sync, async := 0, 0
	for _, m := range members {
		if m.Usable() {
			threads, extra := m.Room()
			sync += threads + extra
			async += settings.Coroutines + extra
		}
	}
	if wanted == 0 && sync == 0 {
		// The first message has a worker started.
		sync, async = settings.Threads, settings.Coroutines
	}
	if r.code.failure() != nil {
		// One message of each function finds out, and stops it: without room the
		// functions would wait for ever, and nobody would know why.
		sync, async = max(sync, 1), max(async, 1)
	}
	if sync != r.sync.Capacity() {
		r.sync.Resize(sync)
	}
	if async != r.async.Capacity() {
		r.async.Resize(async)
	}
}
