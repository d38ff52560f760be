package python

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// TestCoreShare checks that workers get another share of the cores by being replaced, with and without a template,
// and that no call is cut short.
func TestCoreShare(t *testing.T) {
	t.Parallel()
	for _, template := range []bool{false, true} {
		t.Run(map[bool]string{false: "spawn", true: "template"}[template], func(t *testing.T) {
			t.Parallel()
			dir := ""
			p := startApp(t, imports+mark+`
share = os.environ.get("OMP_NUM_THREADS", "none") + " " + os.environ.get("POLARS_MAX_THREADS", "none")
def f(body):
    if body:
        mark(body)
        while not os.path.exists(body.decode() + ".go"): time.sleep(0.005)
    return f"{os.getpid()} {share}"
`, func(c *workers.Config) {
				c.Command.Env = append(slices.DeleteFunc(c.Command.Env, func(v string) bool { return strings.HasPrefix(v, "OMP_") }), "POLARS_MAX_THREADS=7")
				c.Template, dir = template, c.App
				c.Settings.Processes, c.Settings.CoreShare = 2, 1
			}, "f")
			settled := func() bool {
				s := p.Stats()
				return s.Ready == s.Wanted && s.Starting+s.Retiring+s.Outdated == 0
			}
			check := func(want string) {
				t.Helper()
				eventually(t, "the workers", settled)
				for pid, got := range answers(t, p, "f") {
					if got != want {
						t.Errorf("worker %s has %q, want %q", pid, got, want)
					}
				}
			}
			check("1 7")

			// A call that runs in a worker that is replaced, and calls that begin meanwhile.
			path := filepath.Join(t.TempDir(), "call")
			var calls sync.WaitGroup
			calls.Go(func() {
				if got, err := call(t, p, "f", &triggers.Message{Body: []byte(path)}); err != nil || !strings.HasSuffix(string(got), " 1 7") {
					t.Errorf("a call in a worker that is replaced: %s, %v", got, err)
				}
			})
			old := begun(t, path)
			stop := make(chan struct{})
			calls.Go(func() {
				for {
					if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
						t.Errorf("a call while workers are replaced: %v", err)
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			p.ApplySettings(workers.Settings{Processes: 1, CoreShare: 2})
			eventually(t, "a worker with two cores, while the old one runs its call", func() bool {
				s := p.Stats()
				return s.Ready == 1 && s.Outdated == 0 && s.Retiring == 1 && s.PIDs[0] != old
			})
			close(stop)
			if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			calls.Wait()
			check("2 7")

			p.ApplySettings(workers.Settings{Processes: 2, CoreShare: 1})
			check("1 7")
			if s, settings := p.Stats(), p.Settings(); s.Template != template || settings.CoreShare != 1 || len(s.Restarts) != 1 || s.Restarts[process.CauseCoreShare] == 0 {
				t.Errorf("%+v, %+v", s, settings)
			}
			if loaded := len(imported(t, dir)); template && loaded != 3 {
				t.Errorf("the code was loaded %d times; want a template for each share", loaded)
			}
		})
	}
}

// TestCoreShareOfTheSpare checks that the spare worker gets another share of the cores, too: it takes the place of a
// worker.
func TestCoreShareOfTheSpare(t *testing.T) {
	t.Parallel()
	p, dir := startSpared(t, `
share = os.environ["GOMAXPROCS"]
def f(body): return f"{os.getpid()} {share}"
`, func(c *workers.Config) {
		c.Command.Env = slices.DeleteFunc(c.Command.Env, func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
		c.Settings.CoreShare = 1
	})
	before := sparePID(t, p, dir)
	p.ApplySettings(workers.Settings{CoreShare: 3})
	var after int
	eventually(t, "another worker and another spare one", func() bool {
		if s := p.Stats(); s.Ready != 1 || s.Spare != 1 || s.Outdated+s.Starting+s.Retiring > 0 {
			return false
		}
		after = sparePID(t, p, dir)
		return after != before
	})
	if err := syscall.Kill(p.Stats().PIDs[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the spare worker takes its place", func() bool { s := p.Stats(); return s.Ready == 1 && s.PIDs[0] == after })
	if got := answers(t, p, "f")[strconv.Itoa(after)]; got != "3" {
		t.Errorf("the spare worker has %q cores, want 3", got)
	}
}
