// Package azuritetest runs Azurite, Microsoft's own emulator, for tests. It is
// pinned in testdata/package.json and installed by `make azurite`.
package azuritetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// startLimit bounds the start of Azurite, which takes two to six seconds.
const startLimit = time.Minute

// Server is a running Azurite.
type Server struct {
	// Address is HOST:PORT.
	Address string

	process *exec.Cmd
	running sync.WaitGroup
}

// Start runs Azurite over its own directory until the test ends. If it is not
// installed, the test is skipped; in CI it fails.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), "0")
}

// StartIn runs Azurite over dir, on a port of 127.0.0.1, with further options. Port 0 selects a
// free one.
func StartIn(t testing.TB, dir, port string, options ...string) *Server {
	t.Helper()
	s, err := start(t.Context(), dir, port, options)
	if errors.Is(err, errMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

var errMissing = errors.New("to be installed with: make azurite")

func start(ctx context.Context, dir, port string, options []string) (*Server, error) {
	_, here, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(here), "testdata", "node_modules", "azurite", "dist", "src", "queue", "main.js")
	if _, err := os.Stat(script); err != nil {
		return nil, fmt.Errorf("no Azurite: %w", errMissing)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("no Node.js, which Azurite runs on: %w", errMissing)
	}
	args := append([]string{script, "--queueHost", "127.0.0.1", "--queuePort", port, "--location", dir, "--disableTelemetry"}, options...)
	s := &Server{process: exec.Command(node, args...)}
	s.process.Dir = dir
	dieWithUs(s.process)
	out, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.process.Stderr = s.process.Stdout
	started, listens := make(chan error, 1), make(chan string, 1)
	s.running.Go(func() {
		// On Linux the process is killed when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(listens)
		err := s.process.Start()
		started <- err
		if err != nil {
			return
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, address, found := strings.Cut(lines.Text(), "successfully listens on "); found {
				_, address, _ = strings.Cut(address, "://")
				listens <- address
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = s.process.Wait() // it was stopped; otherwise listens returns the error
	})
	if err := <-started; err != nil {
		return nil, err
	}
	late := time.NewTimer(startLimit)
	defer late.Stop()
	select {
	case address, ok := <-listens:
		if ok {
			s.Address = address
			return s, nil
		}
		err = errors.New("it ended before it listened")
	case <-late.C:
		err = fmt.Errorf("it did not listen within %v", startLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Kill()
	return nil, err
}

// Kill stops Azurite like kill -9: data of the last five seconds may not be written to disk yet,
// and is lost. It may be called repeatedly.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop stops Azurite gracefully.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

func (s *Server) end(signal syscall.Signal) {
	_ = s.process.Process.Signal(signal) // it may have ended
	s.running.Wait()
}

// ConnectionString returns the connection string of the server.
func (s *Server) ConnectionString() string { return emulator.ConnectionString(s.Address) }
