package node

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 3 * time.Minute

// needNode skips a test if there is no node; if everything must be tested, that is a failure.
func needNode(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no node, which these tests need")
		}
		t.Skip("there is no node")
	}
}

// files are the files of an app, by name.
type files map[string]string

// startApp runs a pool over an app's files until the test ends. Functions are named
// NAME, in index.js, or MODULE:NAME.
func startApp(t testing.TB, app files, change func(*workers.Config), functions ...string) *workers.Pool {
	t.Helper()
	p := newApp(t, app, change, functions...)
	if err := p.WaitReady(soon(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

func newApp(t testing.TB, app files, change func(*workers.Config), functions ...string) *workers.Pool {
	t.Helper()
	needNode(t)
	dir := t.TempDir()
	put(t, dir, app)
	interpreter, err := FindInterpreter(t.Context(), os.Getenv("DROVER_TEST_NODE"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	home, err := InstallWorker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := workers.Config{
		App: dir, Command: WorkerCommand(interpreter, home, dir, os.Environ()),
		KillGrace: 500 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range functions {
		module, name, found := strings.Cut(f, ":")
		if !found {
			module, name = ".", f
		}
		cfg.Functions = append(cfg.Functions, workers.Function{Name: f, Module: module, Function: name})
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

func put(t testing.TB, dir string, app files) {
	t.Helper()
	for name, text := range app {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// answer is the result of a function's handler.
type answer struct {
	output []byte
	err    error
}

type sink chan answer

func (s sink) SetResult(output []byte, err error) { s <- answer{output, err} }

// handle runs a function as the dispatcher does, and waits for the answer.
func handle(ctx context.Context, t testing.TB, p *workers.Pool, function string, m *triggers.Message) ([]byte, error) {
	t.Helper()
	h, err := p.HandlerOf(function)
	if err != nil {
		t.Fatal(err)
	}
	to := make(sink, 1)
	h.Start(ctx, m, to)
	a := <-to
	return a.output, a.err
}

func call(t testing.TB, p *workers.Pool, function string, m *triggers.Message) ([]byte, error) {
	t.Helper()
	return handle(soon(t), t, p, function, m)
}

// mark is JavaScript that reports to the test that a call has begun.
const mark = `
const fs = require('node:fs');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const block = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
function mark(message) {
  fs.writeFileSync(message.text() + '.new', String(process.pid));
  fs.renameSync(message.text() + '.new', message.text());
}
`

// begun waits for a call's mark and returns its worker.
func begun(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	eventually(t, "the call's beginning", func() bool {
		text, err := os.ReadFile(path)
		if err == nil {
			pid, err = strconv.Atoi(string(text))
		}
		return err == nil
	})
	return pid
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still no %s", what)
		}
	}
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "end of the process", func() bool { return syscall.Kill(pid, 0) != nil })
}

// lines is a log that a test can wait for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns when a line contains all parts.
func (l *lines) wait(t *testing.T, parts ...string) {
	t.Helper()
	eventually(t, "line with "+strings.Join(parts, ", "), func() bool {
		for line := range strings.Lines(l.String()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return true
			}
		}
		return false
	})
}
