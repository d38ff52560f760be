package python

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// TestMain runs more tests at once than there are processors, since most of them wait for
// processes. The flag -parallel overrides it.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))) // the flag exists, and takes a number
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if err := installation.remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
		os.Exit(status)
	}))
}

// installation is the worker that the tests share, since locating the interpreter and compiling the
// worker's files takes longer than most tests.
var installation installed

type installed struct {
	once        sync.Once
	interpreter interpreters.Interpreter
	dir         string // the temporary directory that home is in
	home        string // the path to run
	err         error
}

// find returns the interpreter and the path of the worker. Any test may call it.
func (i *installed) find(t testing.TB) (interpreters.Interpreter, string) {
	t.Helper()
	i.once.Do(func() { i.err = i.install() })
	if i.err != nil {
		t.Fatal(i.err)
	}
	return i.interpreter, i.home
}

func (i *installed) install() (err error) {
	if i.dir, err = os.MkdirTemp("", "drover-python-test-"); err != nil {
		return err
	}
	if err := os.Chmod(i.dir, 0o755); err != nil { // a worker of another user reads it
		return err
	}
	if i.interpreter, err = FindInterpreter(context.Background(), i.dir, os.Getenv("DROVER_TEST_PYTHON"), os.LookupEnv); err != nil {
		return err
	}
	// A shim, such as those of pyenv, takes longer to start than Python itself, and the tests start
	// hundreds of processes.
	own, err := exec.Command(i.interpreter.Path, "-c", "import sys; print(sys.executable, end='')").Output()
	if err != nil {
		return fmt.Errorf("asking %s for its path: %w", i.interpreter.Path, err)
	}
	i.interpreter.Path = string(own)
	if i.home, err = InstallWorker(i.dir); err != nil {
		return err
	}
	// Where PYTHONDONTWRITEBYTECODE is set, each process would compile the files again.
	if out, err := exec.Command(i.interpreter.Path, "-m", "compileall", "-q", i.home).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the worker: %w: %s", err, out)
	}
	return nil
}

// remove removes the files after the last test.
func (i *installed) remove() error {
	if i.dir == "" {
		return nil
	}
	return os.RemoveAll(i.dir)
}

// startApp runs a pool over the source of function_app.py until the test ends.
func startApp(t testing.TB, source string, change func(*workers.Config), functions ...string) *workers.Pool {
	t.Helper()
	p := newApp(t, source, change, functions...)
	if err := p.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func newApp(t testing.TB, source string, change func(*workers.Config), functions ...string) *workers.Pool {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "function_app.py"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	interpreter, home := installation.find(t)
	cfg := workers.Config{
		App: dir, Command: WorkerCommand(interpreter, home, dir, os.Environ()),
		KillGrace: 500 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range functions {
		cfg.Functions = append(cfg.Functions, workers.Function{Name: f, Module: "function_app", Function: f})
	}
	if change != nil {
		change(&cfg)
	}
	p := workers.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// answer is the result of a function's handler.
type answer struct {
	output []byte
	err    error
}

type sink chan answer

func (s sink) SetResult(output []byte, err error) { s <- answer{output, err} }

// handle runs a function as the dispatcher does, and waits for the answer.
func handle(ctx context.Context, h *workers.Handler, m *triggers.Message) ([]byte, error) {
	to := make(sink, 1)
	h.Start(ctx, m, to)
	a := <-to
	return a.output, a.err
}

func handler(t testing.TB, p *workers.Pool, name string) *workers.Handler {
	t.Helper()
	h, err := p.HandlerOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func BenchmarkNoop(b *testing.B) {
	const source = `
def noop(body): return None
async def anoop(body): return None
def noop2(message): return None
`
	for _, bench := range []struct {
		name, function     string
		processes, threads int
	}{
		{"inline-1", "noop", 1, 1}, {"inline-2", "noop", 2, 1}, {"threads-1", "noop", 1, 4}, {"threads-2", "noop", 2, 4},
		{"async-1", "anoop", 1, 1}, {"async-2", "anoop", 2, 1}, {"message-1", "noop2", 1, 1},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := startApp(b, source, func(c *workers.Config) { c.Settings.Processes, c.Settings.Threads = bench.processes, bench.threads }, bench.function)
			body := make([]byte, 128)
			benchmarkPool(b, p, bench.function, func() *triggers.Message { return &triggers.Message{ID: "x", Body: body, Attempt: 1} })
		})
	}
}

// benchmarkPool calls a function of a pool as often as its slots allow.
func benchmarkPool(b *testing.B, p *workers.Pool, function string, message func() *triggers.Message) {
	b.Helper()
	h := handler(b, p, function)
	share := h.Slots().Share(0)
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		n, err := share.Offer(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		n = share.Take(min(n, left))
		left -= n
		for range n {
			all.Go(func() {
				defer share.Free(1)
				if _, err := handle(b.Context(), h, message()); err != nil {
					b.Error(err)
				}
			})
		}
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	p := startApp(t, "def f(body): return body + b'!'\n", nil, "f")
	out, err := handle(t.Context(), handler(t, p, "f"), &triggers.Message{Body: []byte("hi")})
	if err != nil || string(out) != "hi!" {
		t.Error(fmt.Sprint(string(out), err))
	}
}
