// Package suspects records which messages have killed, hung or blocked their worker, or may have, and
// runs those alone. It decides which call is charged an attempt when a worker with several calls
// dies, or when several calls time out together: only the call that blocked the event loop, hung,
// or held the GIL.
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
	// maxRecords bounds the records of a pool; the oldest is dropped.
	maxRecords = 1024
	// maxExcuses is how often a message runs again together with others without using an
	// attempt, before it runs alone.
	maxExcuses = 3
	// maxAlone is the bound in total: a message that runs alone loses time only if the machine is
	// suspended.
	maxAlone = 8
	// maxForgiven is how often the worker of a message that runs alone may stop or hang before the
	// message is considered the cause. The loss because of which it runs alone does not count.
	maxForgiven = 1
)

// Message identifies a message of a function, by index. Messages without an ID are not recorded.
type Message struct {
	Function uint16
	ID       string
}

// Record is the history of a message.
type Record struct {
	Killer       bool // it killed or blocked a worker, while alone or without involvement of others
	mustRunAlone bool // it is suspected, and runs alone until that is decided
	excuses      int  // number of timeouts that other calls caused
}

// RunsAlone reports whether the message must run alone.
func (r Record) RunsAlone() bool { return r.Killer || r.mustRunAlone }

// Registry has the records of one pool.
type Registry struct {
	functions []worker.Function
	log       *slog.Logger
	unproven  *isolation // messages that may have killed or blocked a worker
	killers   *isolation // messages that have

	// Reads take no lock: each message is looked up, and usually there are no records.
	records atomic.Pointer[map[Message]Record]
	mu      sync.Mutex
	order   []Message // the oldest first
}

// New returns a registry without records.
func New(cfg Config) *Registry {
	killers := cfg
	killers.TakeSpare, killers.ReturnSpare = nil, nil
	return &Registry{
		functions: cfg.Functions, log: cfg.Log,
		unproven: newIsolation(suspectLanes, &cfg),
		killers:  newIsolation(killerLanes, &killers),
	}
}

// Workers returns the workers of messages that run alone.
func (s *Registry) Workers() []*worker.Worker {
	return append(s.unproven.readyWorkers(), s.killers.readyWorkers()...)
}

// WaitIdle returns when no messages run alone.
func (s *Registry) WaitIdle() {
	s.unproven.waitIdle()
	s.killers.waitIdle()
}

// RecordOf returns the record of a message.
func (s *Registry) RecordOf(m Message) Record {
	known := s.records.Load()
	if known == nil {
		return Record{}
	}
	return (*known)[m]
}

// changeRecord changes the record of a message.
func (s *Registry) changeRecord(m Message, change func(*Record)) Record {
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

// MarkKiller records that a message has killed or blocked its worker.
func (s *Registry) MarkKiller(m Message) {
	s.changeRecord(m, func(r *Record) { r.Killer = true })
}

// MarkSuspect records that messages may have killed or blocked their worker.
func (s *Registry) MarkSuspect(messages ...Message) {
	for _, m := range messages {
		s.changeRecord(m, func(r *Record) { r.mustRunAlone = true })
	}
}

// clearRecord deletes the record of a message that has run alone and killed nothing.
func (s *Registry) clearRecord(m Message, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.RecordOf(m); now == (Record{}) || now.Killer && !done {
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

// RunAlone runs a message in its own worker, and records whether the message killed it. try
// runs it on a worker; its error is a *worker.Loss if the worker was lost.
func (s *Registry) RunAlone(ctx context.Context, m Message, try func(*worker.Worker) ([]byte, error)) ([]byte, error) {
	in := s.unproven
	if s.RecordOf(m).Killer {
		in = s.killers
	}
	forgiven := 0
	output, err := in.tryAlone(ctx, try, false, func(lost *worker.Loss) (again bool) {
		switch {
		case lost.Again:
		case lost.Outside && lost.Worker.Cause == process.CauseHung && forgiven < maxForgiven && !s.RecordOf(m).Killer:
			forgiven++
			s.log.Warn("an isolated worker was stopped or hung; its message runs again without using an attempt", "function", s.functionName(m), "message", m.ID)
		default:
			s.MarkKiller(m)
			s.log.Error("this message kills its worker", "function", s.functionName(m), "message", m.ID, "error", lost.Err)
			return false
		}
		return true
	})
	if !errors.Is(err, handlers.ErrNotTried) {
		s.clearRecord(m, err == nil)
	}
	return output, err
}

// RunCohort runs a message again in an isolated worker, together with the others that were in flight
// when their worker was killed from outside. If that worker is lost, too, the error is a *worker.Loss.
func (s *Registry) RunCohort(ctx context.Context, m Message, lost *worker.Loss, try func(*worker.Worker) ([]byte, error)) ([]byte, error) {
	s.MarkSuspect(m)
	output, err := s.unproven.tryCohort(ctx, lost.Worker, try)
	var more *worker.Loss
	if isLoss := errors.As(err, &more); isLoss && more.Again || !isLoss && !errors.Is(err, handlers.ErrNotTried) {
		s.clearRecord(m, err == nil)
	}
	return output, err
}

// RunTogether runs a batch of suspected messages in its own worker. try is as for RunAlone. If the
// worker is lost because of the batch, the error is the cause, and the messages remain suspects.
func (s *Registry) RunTogether(ctx context.Context, batch []Message, try func(*worker.Worker) ([]byte, error)) error {
	_, err := s.unproven.tryAlone(ctx, try, true, func(lost *worker.Loss) (again bool) { return lost.Again })
	if err == nil {
		for _, m := range batch {
			s.clearRecord(m, true)
		}
	}
	return err
}

func (s *Registry) functionName(m Message) string { return s.functions[m.Function].Name }

// JudgeCancelled decides whether a cancelled call that did not succeed is charged an attempt. lost
// is how its worker was lost, or nil; how is the call's own error. JudgeCancelled returns a
// handlers.ErrRunAgain if the call is not charged.
func (s *Registry) JudgeCancelled(m Message, w *worker.Worker, c *worker.Call, cancelled error, lost *worker.Loss, how error) error {
	late := timeoutFailure(cancelled, how)
	excuses, hung := s.RecordOf(m).excuses, lost != nil && w.Cause == process.CauseHung
	unknown := lost != nil && !lost.Known // the call at fault is unknown, and may be this one
	switch {
	case lost != nil && lost.Culprit:
		s.MarkKiller(m)
		return late
	case lost != nil && w.Cause == process.CauseReaper:
		return fmt.Errorf("%w: %w", lost.Err, handlers.ErrRunAgain)
	case hung && excuses < maxExcuses, !hung && excuses < maxAlone && c.IsExcused(w, time.Now()):
		again := s.changeRecord(m, func(r *Record) {
			r.excuses++
			r.mustRunAlone = r.mustRunAlone || hung || unknown || r.excuses >= maxExcuses
		})
		s.log.Debug("a call timed out because of another; it runs again", "function", s.functionName(m), "message", m.ID, "times", again.excuses)
		return fmt.Errorf("others took its time: %w", handlers.ErrRunAgain)
	case lost != nil && lost.Again && lost.Suspect && !lost.Alone:
		s.MarkSuspect(m)
		return fmt.Errorf("this call, or another one of its worker, kept the worker from answering: %w", handlers.ErrRunAgain)
	case lost != nil && lost.Again && c.IgnoredCancel(w):
		s.MarkKiller(m)
	}
	return late
}

// JudgeLost returns the error of a call whose worker was killed before the call timed out:
// a handlers.ErrRunAgain, or lost.
func (s *Registry) JudgeLost(m Message, lost *worker.Loss) error {
	if lost.Culprit || lost.Suspect {
		s.MarkSuspect(m)
		return fmt.Errorf("it blocked its worker for others, or may have, and runs again alone: %w", handlers.ErrRunAgain)
	}
	return lost
}

// timeoutError is the error of a call that ended after it was cancelled. Its cause is the
// cancellation, and its detail is where the code was at that time.
type timeoutError struct {
	cause error // of the cancellation
	how   *handlers.Failure
}

func (e *timeoutError) Error() string   { return e.cause.Error() }
func (e *timeoutError) Unwrap() []error { return []error{e.cause, e.how} }

// timeoutFailure returns the failure of a call that ended after it was cancelled. It ignores the
// function's own result, such as a rejection, but keeps the detail about where the call hung.
func timeoutFailure(cause, how error) error {
	failed := handlers.Failure{Summary: how.Error()}
	var failure *handlers.Failure
	if errors.As(how, &failure) {
		failed = *failure
	}
	if failed.Detail == "" {
		failed.Detail = failed.Summary
	}
	return &timeoutError{cause, &failed}
}
