package python

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startApp runs a pool over the source of function_app.py until the test ends.
func startApp(t testing.TB, source string, change func(*workers.Config), functions ...string) *workers.Pool {
	t.Helper()
	p := newApp(t, source, change, functions...)
	if err := p.Ready(t.Context()); err != nil {
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
	interpreter, err := Find(t.Context(), dir, os.Getenv("DROVER_TEST_PYTHON"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	home, err := Install(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := workers.Config{
		App: dir, Command: Command(interpreter, home, dir, os.Environ()),
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

// answer is what a function's handler returned.
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
	h, err := p.Handler(name)
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
			h := handler(b, p, bench.function)
			share := h.Slots().Share(0)
			body := make([]byte, 128)
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
						if _, err := handle(b.Context(), h, &triggers.Message{ID: "x", Body: body, Attempt: 1}); err != nil {
							b.Error(err)
						}
					})
				}
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func TestSmoke(t *testing.T) {
	p := startApp(t, "def f(body): return body + b'!'\n", nil, "f")
	out, err := handle(t.Context(), handler(t, p, "f"), &triggers.Message{Body: []byte("hi")})
	if err != nil || string(out) != "hi!" {
		t.Error(fmt.Sprint(string(out), err))
	}
}
