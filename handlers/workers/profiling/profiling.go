// Package profiling collects the stacks that the workers of one pool sample for a profile of one
// function. A worker.Group has a Session while a profile runs: it reports workers that are ready, that
// have ended, and that have sent a result. The methods may be called from many goroutines, and do
// not block, apart from Run.
package profiling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// Period is the time between two samples in a worker: 100 samples per second. docs/debugging.md has
	// the measured cost.
	Period = 10 * time.Millisecond
	// answerLimit bounds the wait for the results, after the end of the profile. A worker does not
	// answer while C code holds the GIL, for example.
	answerLimit = 5 * time.Second
)

// ErrUnsupported is the error of a profile for which there is no worker that can sample.
var ErrUnsupported = errors.New("its workers cannot sample the stacks of calls")

// Worker is one worker of the pool.
type Worker interface {
	// Label names it for people.
	Label() string
	// SendFrame queues a frame to it.
	SendFrame(frame []byte)
	// HasCapability reports whether it has a capability of protocol.
	HasCapability(name string) bool
}

// Result is the result of a profile.
type Result struct {
	Stacks  Stacks
	Workers int // that have sampled
	// Notes are problems that make the result incomplete, each a sentence without its end.
	Notes []string
}

// Session is a running profile.
type Session struct {
	number int64

	mu       sync.Mutex
	function uint16
	joined   map[Worker]bool // whether its result is missing
	missing  int
	sampling bool // a worker that can sample has joined
	ending   bool
	refused  string // the last worker that cannot sample
	result   Result
	complete chan struct{} // closed when the profile ends, and no result is missing
}

// New returns the session with a number, which no earlier one of the group had. function is its index in the
// pool.
func New(number int64, function uint16) *Session {
	return &Session{number: number, function: function, joined: make(map[Worker]bool), complete: make(chan struct{})}
}

// Run waits until the profile has lasted for a time, and returns its result. If ctx ends first, the workers
// stop to sample, and Run returns the error of ctx. The error is ErrUnsupported if the pool has only
// workers that cannot sample.
func (s *Session) Run(ctx context.Context, length time.Duration) (Result, error) {
	s.mu.Lock()
	unsupported, refused := !s.sampling && s.refused != "", s.refused
	s.mu.Unlock()
	if unsupported {
		return Result{}, fmt.Errorf("%s: %w", refused, ErrUnsupported)
	}
	limit := time.NewTimer(length)
	defer limit.Stop()
	select {
	case <-limit.C:
	case <-ctx.Done():
	}
	s.end()
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	limit.Reset(answerLimit)
	select {
	case <-s.complete:
	case <-limit.C:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	return s.takeResult(), nil
}

// Join makes a ready worker sample. A worker may join several times; the first counts.
func (s *Session) Join(w Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.joined[w]; known || s.ending {
		return
	}
	if !w.HasCapability(protocol.CanProfile) {
		s.refused, s.joined[w] = w.Label(), false
		s.addNote("%s cannot sample the stacks of calls", w.Label())
		return
	}
	s.joined[w], s.sampling = true, true
	s.missing++
	s.send(w, Period)
}

// send starts the sampling of a worker, or ends it with period 0; s.mu is held.
func (s *Session) send(w Worker, period time.Duration) {
	frame, err := protocol.AppendJSON(nil, protocol.Profile, protocol.ProfileFrame{Profile: s.number, Function: s.function, Period: period.Microseconds()})
	if err == nil { // it cannot fail: the frame is small
		w.SendFrame(frame)
	}
}

// Leave removes a worker that has ended.
func (s *Session) Leave(w Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joined[w] {
		s.addNote("%s ended meanwhile; its samples are missing", w.Label())
		s.settle(w)
	}
}

// Receive adds the result of a worker. Results of other profiles are dropped: they were interrupted.
func (s *Session) Receive(w Worker, f *protocol.ProfiledFrame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Profile != s.number || !s.joined[w] {
		return
	}
	if f.Error != "" {
		s.addNote("%s could not sample: %.300s", w.Label(), f.Error)
	} else {
		s.result.Workers++
		s.result.Stacks.Add(f)
	}
	s.settle(w)
}

// settle counts a worker whose result is no longer missing; s.mu is held.
func (s *Session) settle(w Worker) {
	s.joined[w] = false
	s.missing--
	s.closeIfComplete()
}

func (s *Session) closeIfComplete() {
	if s.ending && s.missing == 0 {
		select {
		case <-s.complete:
		default:
			close(s.complete)
		}
	}
}

// end makes all workers stop to sample.
func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	for w, missing := range s.joined {
		if missing {
			s.send(w, 0)
		}
	}
	s.closeIfComplete()
}

func (s *Session) takeResult() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w, missing := range s.joined {
		if missing {
			s.addNote("%s did not send its samples within %v; they are missing", w.Label(), answerLimit)
		}
	}
	s.missing = 0
	clear(s.joined) // later results are dropped
	slices.Sort(s.result.Notes)
	return s.result
}

// maxNotes bounds the notes of a profile.
const maxNotes = 20

// addNote adds a note; s.mu is held.
func (s *Session) addNote(format string, args ...any) {
	if len(s.result.Notes) < maxNotes {
		s.result.Notes = append(s.result.Notes, fmt.Sprintf(format, args...))
	}
}
