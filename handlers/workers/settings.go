package workers

import (
	"slices"
	"sync"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// settings has the settings of the workers that were set last.
type settings struct {
	mu  sync.Mutex
	now worker.Settings // Threaded is never changed in place, except for appending
}

func (s *settings) current() worker.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// set changes the settings that are not 0.
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

// runInThreads makes an async function run in threads.
func (s *settings) runInThreads(index uint16) worker.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Threaded = append(s.now.Threaded, index)
	return s.now
}

// runOnLoop reverts runInThreads. It returns false if the function does not run in threads.
func (s *settings) runOnLoop(index uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.now.Threaded, index) {
		return false
	}
	s.now.Threaded = slices.DeleteFunc(slices.Clone(s.now.Threaded), func(i uint16) bool { return i == index })
	return true
}

// poolSlots has the slots for sync and for async functions. The two kinds do not share slots.
type poolSlots struct {
	roster      *roster
	settings    *settings
	code        *code
	sync, async *handlers.Slots

	mu sync.Mutex // serializes resizes, so that the last one has the latest numbers
}

// resizeSlots sets the slots to the capacity of the ready workers.
func (r *poolSlots) resizeSlots() {
	r.mu.Lock()
	defer r.mu.Unlock()
	members, wanted := r.roster.snapshot()
	settings := r.settings.current()
	sync, async := 0, 0
	for _, m := range members {
		if m.IsUsable() {
			threads, extra := m.SlotCounts()
			sync += threads + extra
			async += settings.Coroutines + extra
		}
	}
	if wanted == 0 && sync == 0 {
		// The first message starts a worker.
		sync, async = settings.Threads, settings.Coroutines
	}
	if r.code.loadFailure() != nil {
		// One message of each function gets the error, which disables the function. Without slots, the
		// functions would wait forever without an error.
		sync, async = max(sync, 1), max(async, 1)
	}
	if sync != r.sync.Capacity() {
		r.sync.Resize(sync)
	}
	if async != r.async.Capacity() {
		r.async.Resize(async)
	}
}
