package daemon

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/autotune"
)

// This file undoes settings under which calls fail. What is decided is in
// scaler/autotune.

// failed reports a failed call to the controller, has what that decides come in force,
// and reports whether the call is released.
func (t *tuner) failed(call dispatch.FailedCall) (release bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	failure := autotune.Call{
		At: time.Since(processStart), Function: call.Function, Message: call.Message, Attempt: call.Attempt, Final: call.Final,
		Async: t.pool.IsAsync(call.Function), Epoch: call.Epoch, Error: call.Err.Error(),
	}
	if now := t.pool.epoch.Load(); now != nil {
		failure.Passed = now.PassedAt(call.Place)
	}
	ruling := t.controller.Failed(failure)
	if ruling.Changed {
		t.decide(t.controller.Decision(), call.Err)
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
		t.log.Info("settings changed", "processes", now.Processes, "threads", now.Threads, "coroutines", now.Coroutines, "phase", now.Phase, "why", now.Note)
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
	passed := make(map[string]int64)
	if last := t.pool.epoch.Load(); last != nil {
		for i, name := range functions {
			passed[name] = last.PassedAt(i)
		}
	}
	number := t.controller.InForce(time.Since(processStart), t.level, passed)
	t.pool.epoch.Store(dispatch.NewEpoch(number, len(functions), t.pool.callFailed))
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
			t.log.Warn("calls failed after a change of settings, and succeed without it; it stays reverted until the code or the settings of the app change",
				append(attrs, "set", u.Key())...)
			t.lasting = true
		case i < 0:
			var failure *handlers.Failure
			if errors.As(err, &failure) && failure.Detail != "" {
				attrs = append(attrs, slog.String("detail", failure.Detail))
			}
			t.log.Info("calls fail right after a change of settings; it is reverted, and being checked", attrs...)
		}
	}
	for _, u := range before {
		if !slices.ContainsFunc(now, same(u)) {
			t.log.Info("a reverted change of settings may be tried again", "setting", u.Setting, "tried", u.Tried, "function", u.Function, "error", u.Error)
			t.lasting = true
		}
	}
}
