package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/autotune"
	"github.com/drover-run/drover/triggers"
)

// This file undoes settings under which calls fail. What is decided is in
// scaler/autotune.

// epoch is the time between two changes of a pool's settings.
type epoch struct {
	number int
	pool   *pool
	passed []atomic.Int64 // calls that were handed out in it and passed in it, by the function's place
}

// ended takes how a call ended that was handed out in the epoch. It returns the error
// for judge: one that is handlers.ErrNotTried where the settings are to blame.
func (e *epoch) ended(t *turn, err error) error {
	var loadError *handlers.LoadError
	switch {
	case err == nil:
		if e.pool.epoch.Load() == e {
			e.passed[t.f.place].Add(1)
		}
		return nil
	case errors.Is(err, handlers.ErrNotTried), errors.Is(err, triggers.ErrTooLarge), errors.As(err, &loadError), t.f.working.Err() != nil:
		return err // it says nothing of the function
	case e.pool.tuner.Load().failed(e, t, err):
		return &undoneError{err}
	}
	return err
}

// undoneError is a failure by settings that are undone: no attempt is charged for it.
type undoneError struct{ how error }

func (e *undoneError) Error() string {
	return fmt.Sprintf("failed under settings that drover tried, and is released: %v", e.how)
}

// Unwrap hides how it failed: whatever that says, the function is not to blame.
func (e *undoneError) Unwrap() error { return handlers.ErrNotTried }

// failed reports a failed call to the controller, has what that decides come in force,
// and reports whether the call is released.
func (t *tuner) failed(e *epoch, call *turn, err error) (release bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	failure := autotune.Call{
		At: time.Since(birth), Function: call.f.name, Message: call.message.ID, Attempt: call.message.Attempt,
		Final: handlers.Rejected(err) || call.message.Attempt >= call.f.retry.MaxAttempts,
		Async: t.pool.IsAsync(call.f.name), Epoch: e.number, Error: err.Error(),
	}
	if now := t.pool.epoch.Load(); now != nil {
		failure.Passed = now.passed[call.f.place].Load()
	}
	ruling := t.controller.Failed(failure)
	if ruling.Changed {
		t.decide(t.controller.Decision(), err)
	}
	if ruling.Renew {
		t.pool.Renew(true)
		t.begin()
	}
	return ruling.Release
}

// decide has a decision come in force; mu is held. The error is what failed, if that
// is why.
func (t *tuner) decide(now autotune.Decision, err error) {
	before := t.decision
	t.decision = now
	if now.Settings != before.Settings && before.Phase != "" {
		t.log.Info("other settings", "processes", now.Processes, "threads", now.Threads, "coroutines", now.Coroutines, "phase", now.Phase, "why", now.Note)
	}
	t.tell(before.Undone, now.Undone, err)
	t.apply(now)
	back := now.Phase == autotune.PhaseUndone && before.Phase != autotune.PhaseUndone
	for _, u := range now.Undone {
		if u.Moved == "" {
			continue
		}
		if to := t.pool.KeepTogether(u.Moved); to != nil {
			t.move(u.Moved, to)
			t.pool.Renew(true)
		}
	}
	if back {
		if p := t.pool.Settings().Processes; now.Processes < p {
			t.pool.Scale(now.Processes)
		}
		t.pool.Renew(false)
	}
	t.changed()
}

// moved takes that a function was moved; nil does nothing.
func (t *tuner) moved() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed()
}

// begin begins a new epoch; mu is held.
func (t *tuner) begin() {
	s := t.pool.Settings()
	t.level = autotune.Level{
		Settings: autotune.Settings{Processes: s.Processes, Threads: s.Threads, Coroutines: s.Coroutines},
		Isolated: strings.Join(t.pool.Isolated(), ","),
	}
	functions := t.pool.Functions()
	e := &epoch{pool: t.pool, passed: make([]atomic.Int64, len(functions))}
	passed := make(map[string]int64)
	if last := t.pool.epoch.Load(); last != nil {
		for i, name := range functions {
			passed[name] = last.passed[i].Load()
		}
	}
	e.number = t.controller.InForce(time.Since(birth), t.level, passed)
	t.pool.epoch.Store(e)
}

// changed begins a new epoch if the pool's settings are others than those of the last.
func (t *tuner) changed() {
	s := t.pool.Settings()
	now := autotune.Settings{Processes: s.Processes, Threads: s.Threads, Coroutines: s.Coroutines}
	if t.pool.epoch.Load() == nil || now != t.level.Settings || strings.Join(t.pool.Isolated(), ",") != t.level.Isolated {
		t.begin()
	}
}

// tell logs what is undone now, once.
func (t *tuner) tell(before, now []autotune.Undone, err error) {
	same := func(a autotune.Undone) func(autotune.Undone) bool {
		return func(b autotune.Undone) bool {
			return a.Setting == b.Setting && a.Moved == b.Moved && a.Kind == b.Kind
		}
	}
	for _, u := range now {
		i := slices.IndexFunc(before, same(u))
		attrs := []any{"setting", u.Setting, "tried", u.Tried, "now", u.Value, "function", u.Function, "error", u.Error}
		if u.Moved != "" {
			attrs = []any{"setting", u.Setting, "moved_back", u.Moved, "function", u.Function, "error", u.Error}
		}
		switch {
		case u.Proved && (i < 0 || !before[i].Proved):
			t.log.Warn("calls failed after a change of settings, and pass without it; it stays undone until the code or the settings of the app change",
				append(attrs, "set", u.Key())...)
			t.lasting = true
		case i < 0:
			var failure *handlers.Failure
			if errors.As(err, &failure) && failure.Detail != "" {
				attrs = append(attrs, slog.String("detail", failure.Detail))
			}
			t.log.Info("calls fail right after a change of settings; it is undone, and being checked", attrs...)
		}
	}
	for _, u := range before {
		if !slices.ContainsFunc(now, same(u)) {
			t.log.Info("a change of settings that was undone may be tried again", "setting", u.Setting, "tried", u.Tried, "function", u.Function, "error", u.Error)
			t.lasting = true
		}
	}
}
