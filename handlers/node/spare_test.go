package node

import (
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// The messages of a worker that is killed run again in the spare worker, and no message fails.
func TestTheSpareWorkerTakesOver(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": mark + `
exports.f = async (message) => {
  const path = message.text();
  if (fs.existsSync(path)) return String(process.pid);
  mark(message);
  await sleep(60000);
};
`}, func(c *workers.Config) { c.Spare = workers.Spare{Keep: true, After: time.Millisecond} }, "f")
	spared := func() bool { s := p.Stats(); return s.Ready == 1 && s.Spare == 1 }
	eventually(t, "a worker and a spare one", spared)
	var calls sync.WaitGroup
	var mu sync.Mutex
	ranIn := make(map[string]bool)
	killed, dir := 0, t.TempDir()
	for i := range 3 {
		path := filepath.Join(dir, fmt.Sprint(i))
		calls.Go(func() {
			out, err := call(t, p, "f", &triggers.Message{ID: path, Body: []byte(path)})
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ranIn[string(out)] = true
		})
		killed = begun(t, path)
	}
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	if len(ranIn) != 1 || ranIn[fmt.Sprint(killed)] {
		t.Errorf("they ran again in %v", ranIn)
	}
	eventually(t, "a spare worker again", spared)
	if s := p.Stats(); len(s.Restarts) != 1 || s.Restarts[process.CauseMemory] != 1 {
		t.Errorf("%+v; want one restart", s)
	}
}
