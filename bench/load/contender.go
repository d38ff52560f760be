package load

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Contender is a system with its settings.
type Contender struct {
	Name    string
	Fastest float64 // messages a second, more than it can handle; determines how many are put into its queue
	// InFlight is how many messages of a function that waits it may have in flight; 0 is the constant InFlight.
	InFlight int
	// Warm is the further time before the window that it needs to find its numbers for a function that waits.
	Warm time.Duration
	Open func(ctx context.Context, run Run) (System, error)
}

// Run is one measurement: an empty directory, and what the functions do.
type Run struct {
	Dir  string
	Cell Cell
	// OwnProgram runs drover from a copy of this program: processes of one file share its pages, so
	// this process would count as a part of drover's memory.
	OwnProgram bool
}

// program returns the path of the program that runs drover.
func (r Run) program() (string, error) {
	program, err := os.Executable()
	if err != nil || !r.OwnProgram {
		return program, err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	own := filepath.Join(r.Dir, "drover")
	return own, os.WriteFile(own, text, 0o700)
}

// CountsDir is where the functions count.
func (r Run) CountsDir() string { return filepath.Join(r.Dir, "counts") }

// Env is the environment of the processes that run functions.
func (r Run) Env() []string {
	kind := r.Cell.Work
	if kind == Awaits {
		kind = Wait
	}
	env := append(os.Environ(), "BENCH_COUNTS="+r.CountsDir(), "BENCH_WORK="+kind,
		"BENCH_SECONDS="+strconv.FormatFloat(r.Cell.Time.Seconds(), 'f', -1, 64))
	if r.Cell.Rate > 0 {
		env = append(env, "BENCH_LATENCY=1")
	}
	return env
}

// System is a contender that was opened, with its broker.
type System interface {
	// Fill puts messages of the cell's size into the queue. It is called before Start.
	Fill(ctx context.Context, messages int) error
	// Start starts the processes that run functions.
	Start(ctx context.Context) error
	// Send sends messages after Start, at a rate, or as fast as possible if that is 0. Each starts
	// with the time at which it was sent.
	Send(ctx context.Context, messages, rate int) error
	// Processes returns the processes by their part. It is called after Start.
	Processes() (Processes, error)
	// Close stops all processes.
	Close() error
}

// Processes are the processes of a system.
type Processes struct {
	Daemon  []int // drover's daemon, with the embedded server if that is used; peers have none
	Workers []int // those that run functions, and their parents
	Broker  []int
}
