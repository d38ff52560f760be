package emulator

import (
	"sync"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

var errBusy = codec.Failure(codec.CondBusy, "The server is busy. Please wait before retrying.")

// faults are the injected faults.
type faults struct {
	mu    sync.Mutex
	delay time.Duration
	busy  bool
}

func (f *faults) wait() {
	f.mu.Lock()
	delay := f.delay
	f.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
}

func (f *faults) refusal() *codec.Condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		return errBusy
	}
	return nil
}

func (f *faults) setDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

func (f *faults) setBusy(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = on
}
