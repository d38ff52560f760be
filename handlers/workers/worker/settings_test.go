package worker

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// TestTheLatestSettingsAreSentLast changes settings from several goroutines. The worker must end
// with the latest settings.
func TestTheLatestSettingsAreSentLast(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	threads := 1
	var w *Worker
	w = NewGroup(Config{
		Functions: []Function{{Name: "f"}}, Log: slog.New(slog.DiscardHandler),
		Settings: func() Settings {
			if w.applying.TryLock() {
				t.Error("settings are read before the lock is held: others could be sent in between")
				w.applying.Unlock()
			}
			mu.Lock()
			defer mu.Unlock()
			return Settings{Threads: threads, Coroutines: 7}
		},
	}).NewWorker(&process.Process{Process: new(childproc.Process)})
	w.Welcome, w.Ready = &protocol.WelcomeFrame{Capabilities: []string{protocol.CanSettings}}, &protocol.ReadyFrame{}
	close(w.Loaded)
	var changing sync.WaitGroup
	for range 4 {
		changing.Go(func() {
			for range 100 {
				mu.Lock()
				threads++
				mu.Unlock()
				w.ApplySettings()
			}
		})
	}
	changing.Wait()
	want, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{Threads: threads, Coroutines: 7})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(w.out.bytes, want) {
		t.Errorf("the last settings that were sent are not %s", want)
	}
}
