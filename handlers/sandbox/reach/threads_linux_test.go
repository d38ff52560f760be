package reach

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestThreads(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // a thread that is not the first, and ends
		thread := uint32(unix.Gettid())
		if got := processOf(thread); got != os.Getpid() {
			t.Errorf("thread %d is of process %d, not %d", thread, got, os.Getpid())
		}
		if hasSignal(thread) {
			t.Error("no signal waits for it")
		}
	}()
	<-done
	if got := processOf(1 << 30); got != -1 {
		t.Errorf("nobody's process is %d", got)
	}
}
