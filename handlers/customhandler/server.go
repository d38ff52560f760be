// Package customhandler runs the program of a custom handler of Azure Functions: a web server that
// gets each invocation as a request. The program is started with its port in the environment, as the
// Azure Functions host starts it. A program that ends is started again, with backoff.
//
// New and Run are called once; the other methods may be called from any goroutine. Package
// httphandler posts the invocations, and finds out by itself whether the server can be reached.
package customhandler

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/google/uuid"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
)

// Config configures a Server. All fields but Port are required.
type Config struct {
	// Starter starts the program. Its Command has the program, the directory and the environment;
	// New adds the arguments and the variables of a custom handler.
	Starter *process.Starter
	// Arguments are the arguments in host.json.
	Arguments []string
	// Root is the directory of the function app.
	Root string
	// Port is where the program listens, on 127.0.0.1. 0 is a free one.
	Port int
	// StartTimeout bounds the time until a program that has started listens; after that it is killed.
	StartTimeout time.Duration
	// StopGrace is how long the program may take to end after a SIGTERM, before it is killed.
	StopGrace time.Duration
	Log       *slog.Logger
}

const (
	// healthy is how long a program must run for the backoff to be reset: as for workers.
	healthy = 10 * time.Second
	// dialEvery is the interval between connection attempts to a started program, the same as the
	// host's.
	dialEvery = 25 * time.Millisecond
	dialLimit = time.Second
	// maxStarts is how many programs in a row may end before one has listened. Then WaitReady returns
	// an error, and Run continues.
	maxStarts = 3
)

// Server is a custom handler.
type Server struct {
	cfg     Config
	address string
	started chan struct{} // closed when the first program listens, or when it has failed maxStarts times

	mu      sync.Mutex
	failure error // why WaitReady fails; nil if a program has listened
	process *process.Process
}

// New returns a server that does not run yet. It chooses the port, and keeps it for all programs.
func New(cfg Config) (*Server, error) {
	port := cfg.Port
	if port == 0 {
		var err error
		if port, err = freePort(); err != nil {
			return nil, fmt.Errorf("choosing a port for the custom handler: %w", err)
		}
	}
	s := &Server{cfg: cfg, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), started: make(chan struct{})}
	id := uuid.NewString()
	command := &cfg.Starter.Command
	command.Env = setVariables(command.Env, map[string]string{
		"FUNCTIONS_CUSTOMHANDLER_PORT": strconv.Itoa(port), "FUNCTIONS_CUSTOMHANDLER_WORKER_ID": id,
		"FUNCTIONS_HTTPWORKER_PORT": strconv.Itoa(port), "FUNCTIONS_HTTPWORKER_ID": id, // the older names
		"FUNCTIONS_APP_ROOT_PATH": cfg.Root,
	})
	arguments, unset := expandArguments(cfg.Arguments, command.Env)
	for _, name := range unset {
		cfg.Log.Warn("an argument of the custom handler refers to a variable that is not set; it is left out", "variable", name)
	}
	command.Args = arguments
	return s, nil
}

// freePort returns a port on which nothing listens.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// Address returns the program's address, as HOST:PORT.
func (s *Server) Address() string { return s.address }

// WaitReady waits until the program listens for the first time. The error is a *handlers.Failure if
// the program ended several times before that, with how it ended and its last lines.
func (s *Server) WaitReady(ctx context.Context) error {
	select {
	case <-s.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// PID returns the process ID of the program; 0 if it is not running.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.PID
}

// Run starts the program, and starts it again whenever it ends, until ctx ends. Then it stops the
// program, and returns when it has ended.
func (s *Server) Run(ctx context.Context) {
	restarts := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0))
	listened := false
	for failed := 0; ctx.Err() == nil; {
		began := time.Now()
		up, err := s.runOnce(ctx)
		if ctx.Err() != nil {
			break
		}
		if up {
			listened, failed = true, 0
		} else {
			failed++
		}
		if time.Since(began) >= healthy {
			restarts.Reset()
		}
		pause := restarts.NextBackOff()
		s.cfg.Log.Error("the custom handler ended; it is started again", "error", err, "after", pause.Round(time.Millisecond))
		if !listened && failed == maxStarts {
			s.report(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	s.report(context.Canceled)
}

// report ends WaitReady, with an error or without. Only the first call has an effect.
func (s *Server) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.started:
	default:
		s.failure = err
		close(s.started)
	}
}

// runOnce runs the program once, until it ends or ctx ends. It reports whether the program listened.
func (s *Server) runOnce(ctx context.Context) (listened bool, err error) {
	p, err := s.cfg.Starter.Start()
	if err != nil {
		return false, err
	}
	_ = p.Conn.Close() // the process is not a worker and does not use its socket
	s.setProcess(p)
	defer s.setProcess(nil)
	why := ""
	switch s.waitUntilListening(ctx, p) {
	case listening:
		s.cfg.Log.Info("the custom handler listens", "address", s.address, "pid", p.PID)
		s.report(nil)
		listened = true
		select {
		case <-p.Ended():
		case <-ctx.Done():
		}
	case late:
		why = fmt.Sprintf("it did not listen on %s within %v, and was killed; it must listen on the port in FUNCTIONS_CUSTOMHANDLER_PORT", s.address, s.cfg.StartTimeout)
		p.Signal(syscall.SIGKILL)
	}
	s.stopProcess(p)
	if why == "" {
		why, _ = p.HowEnded()
	}
	return listened, &handlers.Failure{Summary: "the custom handler: " + why, Detail: p.LastLines()}
}

func (s *Server) setProcess(p *process.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
}

// outcome is the result of waitUntilListening.
type outcome int

const (
	listening outcome = iota
	late              // it took too long
	over              // it ended, or ctx did
)

// waitUntilListening waits until the program accepts a connection. Any response counts, so none is
// read, as with the host.
func (s *Server) waitUntilListening(ctx context.Context, p *process.Process) outcome {
	limit := time.NewTimer(s.cfg.StartTimeout)
	defer limit.Stop()
	again := time.NewTicker(dialEvery)
	defer again.Stop()
	dialer := net.Dialer{Timeout: dialLimit}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", s.address)
		if err == nil {
			_ = conn.Close()
			select {
			case <-p.Ended(): // another program listens on its port
				return over
			default:
				return listening
			}
		}
		select {
		case <-again.C:
		case <-limit.C:
			return late
		case <-p.Ended():
			return over
		case <-ctx.Done():
			return over
		}
	}
}

// stopProcess ends the program, if it still runs, and waits until it has ended.
func (s *Server) stopProcess(p *process.Process) {
	select {
	case <-p.Ended():
		return
	default:
	}
	p.Signal(syscall.SIGTERM)
	limit := time.NewTimer(s.cfg.StopGrace)
	defer limit.Stop()
	select {
	case <-p.Ended():
		return
	case <-limit.C:
	}
	s.cfg.Log.Warn("the custom handler did not end after SIGTERM, and is killed", "pid", p.PID, "after", s.cfg.StopGrace)
	p.Signal(syscall.SIGKILL)
	<-p.Ended()
}
