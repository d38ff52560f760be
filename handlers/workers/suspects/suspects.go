// Package suspects remembers which messages have killed, hung or blocked their worker, or may
// have, and runs those alone. It decides which call is charged when the worker of several
// dies, or when several run out of time together: the one that blocked their event loop,
// hung, or held the GIL, and nobody else.
//
// A pool has one Registry. Its methods may be called from any goroutine.
package suspects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// maxRecords bounds the messages that a pool remembers; the oldest is dropped.
	maxRecords = 1024
	// maxExcuses is how often a message runs again together with others without using an
	// attempt, before it runs alone.
	maxExcuses = 3
	// maxAlone is how often in all: where it runs alone only a machine that stands still
	// takes its time.
	maxAlone = 8
	// maxForgiven is how often a message that runs alone may lose its worker to somebody
	// else's SIGKILL or SIGSTOP before that counts as its own doing. The loss that brought
	// it here does not count either.
	maxForgiven = 1
)

// Message is a message of a function, by index. One without an id is not remembered.
type Message struct {
	Function uint16
	ID       string
}

// Record is what is known of a message.
type Record struct {
	Killer  bool // it has killed or blocked a worker, alone or while its neighbours did not
	alone   bool // it may have: it runs alone until that is known
	excuses int  // how often it ran out of time by no fault of its own
}

// RunsAlone reports whether the message is to run alone.
func (r Record) RunsAlone() bool { return r.Killer || r.alone }

// Registry has the records of one pool.
type Registry struct {
	functions []worker.Function
	log       *slog.Logger
	unproven  *isolation // for messages that may have killed or blocked a worker
	killers   *isolation // for messages that have

	// Reading takes no lock: each message is looked up, and mostly there are none.
	records atomic.Pointer[map[Message]Record]
	mu      sync.Mutex
	order   []Message // the oldest first
}

// New returns a registry without records. start starts a worker for messages that run
// alone; its error is a handlers.ErrNotTried. startTimeout bounds the loading of the code.
func New(functions []worker.Function, start func() (*worker.Worker, error), startTimeout time.Duration, log *slog.Logger) *Registry {
	return &Registry{
		functions: functions, log: log,
		unproven: newIsolation(suspectLanes, start, startTimeout),
		killers:  newIsolation(killerLanes, start, startTimeout),
	}
}

// Workers are those of messages that run alone.
func (s *Registry) Workers() []*worker.Worker {
	return append(s.unproven.readyWorkers(), s.killers.readyWorkers()...)
}

// WaitIdle returns when no message runs alone any more.
func (s *Registry) WaitIdle() {
	s.unproven.waitIdle()
	s.killers.waitIdle()
}

// Of returns what is known of a message.
func (s *Registry) Of(m Message) Record {
	known := s.records.Load()
	if known == nil {
		return Record{}
	}
	return (*known)[m]
}

// note changes what is known of a message.
func (s *Registry) note(m Message, change func(*Record)) Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[Message]Record)
	if known := s.records.Load(); known != nil {
		next = maps.Clone(*known)
	}
	now, is := next[m]
	change(&now)
	if m.ID == "" {
		return now
	}
	if !is {
		if s.order = append(s.order, m); len(s.order) > maxRecords {
			delete(next, s.order[0])
			s.order = s.order[1:]
		}
	}
	next[m] = now
	s.records.Store(&next)
	return now
}

// NoteKiller remembers that a message has killed or blocked its worker.
func (s *Registry) NoteKiller(m Message) {
	s.note(m, func(r *Record) { r.Killer = true })
}

// NoteSuspect remembers that a message may have killed or blocked its worker.
func (s *Registry) NoteSuspect(m Message) {
	s.note(m, func(r *Record) { r.alone = true })
}

// clear drops what is known of a message that has run alone and killed nothing.
func (s *Registry) clear(m Message, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.Of(m); now == (Record{}) || now.Killer && !done {
		return
	}
	next := maps.Clone(*s.records.Load())
	delete(next, m)
	for at, other := range s.order {
		if other == m {
			s.order = append(s.order[:at:at], s.order[at+1:]...)
			break
		}
	}
	if len(next) == 0 {
		s.records.Store(nil)
		return
	}
	s.records.Store(&next)
}

// RunAlone runs a message in a worker of its own, and remembers whether it killed that. try
// runs it on a worker; its error is a *worker.Loss if the worker was lost.
func (s *Registry) RunAlone(ctx context.Context, m Message, try func(*worker.Worker) ([]byte, error)) ([]byte, error) {
	in := s.unproven
	if s.Of(m).Killer {
		in = s.killers
	}
	forgiven := 0
	output, err := in.tryAlone(ctx, try, func(lost *worker.Loss) (again bool) {
		switch {
		case lost.Again:
		case lost.Outside && forgiven < maxForgiven && !s.Of(m).Killer:
			forgiven++
			s.log.Warn("an isolated worker was killed from outside, stopped or hung; its message runs again without using an attempt", "function", s.name(m), "message", m.ID)
		default:
			s.NoteKiller(m)
			s.log.Error("this message kills its worker", "function", s.name(m), "message", m.ID, "error", lost.How)
			return false
		}
		return true
	})
	if !errors.Is(err, handlers.ErrNotTried) {
		s.clear(m, err == nil)
	}
	return output, err
}

func (s *Registry) name(m Message) string { return s.functions[m.Function].Name }

// Charge decides what becomes of a call that was cancelled, and did not come to its end
// for that. lost is how its worker ended, nil if it has not, and how is what is known of the
// call. The error is a handlers.ErrRunAgain if the call is not charged.
func (s *Registry) Charge(m Message, w *worker.Worker, c *worker.Call, cancelled error, lost *worker.Loss, how error) error {
	late := lateFailure(cancelled, how)
	excuses, hung := s.Of(m).excuses, lost != nil && w.Cause == process.CauseHung
	unknown := lost != nil && !lost.Known // somebody took its time, and may be this call itself
	switch {
	case lost != nil && lost.Culprit:
		s.NoteKiller(m)
		return late
	case lost != nil && w.Cause == process.CauseReaper:
		return fmt.Errorf("%w: %w", lost.How, handlers.ErrRunAgain)
	case hung && excuses < maxExcuses, !hung && excuses < maxAlone && c.Excused(w, time.Now()):
		again := s.note(m, func(r *Record) {
			r.excuses++
			r.alone = r.alone || hung || unknown || r.excuses >= maxExcuses
		})
		s.log.Debug("a call timed out because of another; it runs again", "function", s.name(m), "message", m.ID, "times", again.excuses)
		return fmt.Errorf("others took its time: %w", handlers.ErrRunAgain)
	case lost != nil && lost.Again && lost.Suspect && !lost.Alone:
		s.NoteSuspect(m)
		return fmt.Errorf("this call, or another one of its worker, kept the worker from answering: %w", handlers.ErrRunAgain)
	case lost != nil && lost.Again && c.Disobeyed(w):
		s.NoteKiller(m)
	}
	return late
}

// Spare decides what becomes of a call whose worker was killed, and whose time was not up.
// The error is a handlers.ErrRunAgain, or lost.
func (s *Registry) Spare(m Message, lost *worker.Loss) error {
	if lost.Culprit || lost.Suspect {
		s.NoteSuspect(m)
		return fmt.Errorf("it blocked its worker for others, or may have, and runs again alone: %w", handlers.ErrRunAgain)
	}
	return lost
}

// lateError is the error of a call that ended after it was cancelled. Its cause is the
// cancellation, and its detail the place of its code at that time.
type lateError struct {
	cause error // of the cancellation
	how   *handlers.Failure
}

func (e *lateError) Error() string   { return e.cause.Error() }
func (e *lateError) Unwrap() []error { return []error{e.cause, e.how} }

// lateFailure is the failure of a call that was cancelled, and then ended in some way. What
// its function made of that, a rejection perhaps, counts no longer; what is known of
// where it hung does.
func lateFailure(cause, how error) error {
	failed := handlers.Failure{Summary: how.Error()}
	var failure *handlers.Failure
	if errors.As(how, &failure) {
		failed = *failure
	}
	if failed.Detail == "" {
		failed.Detail = failed.Summary
	}
	return &lateError{cause, &failed}
}
