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

// report is a line from an instance. The first one reports that it is ready.
type report struct {
	InFlight int64           `json:"in_flight"`
	Load     json.RawMessage `json:"load,omitempty"`
}

// Link is the instance's side: it has the initial settings, receives the request to drain, and
// sends the reports. All methods may be called from any goroutine.
type Link struct {
	// Hello has the initial settings, from Config.Hello.
	Hello json.RawMessage

	drain chan struct{}
	mu    sync.Mutex
	down  *os.File
	up    *os.File
	read  sync.WaitGroup
}

// maxHello bounds the initial settings, in bytes.
const maxHello = 4 << 20

// mark is the environment variable of an instance. Its absence identifies a command that a user
// typed.
const mark = "DROVER_INSTANCE"

// Attach opens the pipes of a process that a Provisioner started. It is called once; env looks
// up the environment. It returns an error in any other process.
func Attach(env func(name string) (string, bool)) (*Link, error) {
	if _, found := env(mark); !found {
		return nil, errors.New("this command is for drover itself, which runs it for each of several instances: set scale.instances, and use drover run")
	}
	for fd := 3; fd <= 4; fd++ {
		// So that Close ends a pending read.
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
			continue // there is no further message
		}
	})
	return l, nil
}

// DrainRequested returns a channel that is closed when the instance must finish its messages and exit:
// either it was requested, or the provisioner has exited, and others may be started in its
// place.
func (l *Link) DrainRequested() <-chan struct{} { return l.drain }

// Report sends a report. The first one reports that the instance is ready.
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

// Close closes the pipes; no report can follow.
func (l *Link) Close() error {
	err := errors.Join(l.up.Close(), l.down.Close())
	l.read.Wait()
	return err
}
