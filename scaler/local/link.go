package local

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
)

// report is a line from an instance. The first says that it is ready.
type report struct {
	InFlight int64           `json:"in_flight"`
	Load     json.RawMessage `json:"load,omitempty"`
}

// Link is an instance's side: what it was told, and where it reports to.
type Link struct {
	// Hello is what it was greeted with.
	Hello json.RawMessage

	drain chan struct{}
	mu    sync.Mutex
	down  *os.File
	up    *os.File
	read  sync.WaitGroup
}

// maxHello bounds a greeting, in bytes.
const maxHello = 4 << 20

// mark is the variable in an instance's environment that tells it from a command
// that somebody typed.
const mark = "DROVER_INSTANCE"

// Attach is called by a process that a Provisioner started, once, with a way to
// look at the environment. The error says that none did.
func Attach(env func(name string) (string, bool)) (*Link, error) {
	if _, found := env(mark); !found {
		return nil, errors.New("this command is for drover itself, which runs it for each of several instances: set scale.instances, and use drover run")
	}
	for fd := 3; fd <= 4; fd++ {
		// So that closing one ends a read that is under way.
		if err := syscall.SetNonblock(fd, true); err != nil {
			return nil, fmt.Errorf("opening the pipes of an instance: %w", err)
		}
	}
	l := &Link{drain: make(chan struct{}), down: os.NewFile(3, "orders"), up: os.NewFile(4, "reports")}
	lines := bufio.NewScanner(l.down)
	lines.Buffer(nil, maxHello)
	if !lines.Scan() {
		return nil, errors.Join(errors.New("the greeting of an instance did not come"), lines.Err())
	}
	l.Hello = slices.Clone(lines.Bytes())
	l.read.Go(func() {
		defer close(l.drain)
		for lines.Scan() {
			continue // nothing more is said
		}
	})
	return l, nil
}

// Drain is closed when the instance is to finish what it has, and end: it was
// asked to, or its provisioner is gone, and others may be started in its place.
func (l *Link) Drain() <-chan struct{} { return l.drain }

// Report says how the instance is. The first report says that it is ready. It is
// for any goroutine.
func (l *Link) Report(inFlight int64, load any) error {
	text, err := json.Marshal(load)
	if err != nil {
		return fmt.Errorf("writing a report: %w", err)
	}
	line, err := json.Marshal(report{inFlight, text})
	if err != nil {
		return fmt.Errorf("writing a report: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.up.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing a report: %w", err)
	}
	return nil
}

// Close ends the link; the instance reports no more.
func (l *Link) Close() error {
	err := errors.Join(l.up.Close(), l.down.Close())
	l.read.Wait()
	return err
}
