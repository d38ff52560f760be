package autoscale

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/autotune"
)

// This file reverts settings under which calls fail, as scaler/autotune decides.

// CallFailed passes a failed call to the controller and applies its decision. It reports whether
// the call is released.
func (t *tuner) CallFailed(call dispatch.FailedCall) (release bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	failure := autotune.Call{
		At: time.Since(telemetry.ProcessStart), Function: call.Function, Message: call.Message, Attempt: call.Attempt, Final: call.Final,
		Async: t.pool.IsAsync(call.Function), Epoch: call.Epoch, Error: call.Err.Error(),
	}
	if now := t.pool.Epoch.Load(); now != nil {
		failure.Passed = now.PassedCalls(call.PoolIndex)
	}
	ruling := t.controller.Failed(failure)
	if ruling.Changed {
		t.adoptDecision(t.controller.Decision(), call.Err)
	}
	if ruling.Renew {
		t.pool.RenewWorkers(true)
		t.beginEpoch()
	}
	return ruling.Release
}

// adoptDecision applies a decision; mu is held. err is the failure that led to it; may be nil.
func (t *tuner) adoptDecision(now autotune.Decision, err error) {
	before := t.decision
	t.decision = now
	if now.Settings != before.Settings && before.Phase != "" {
		t.log.Info("settings changed", "processes", now.Processes, "threads", now.Threads, "coroutines", now.Coroutines, "phase", now.Phase, "why", now.Note)
	}
	t.logUndone(before.Undone, now.Undone, err)
	t.apply(now)
	back := now.Phase == autotune.PhaseUndone && before.Phase != autotune.PhaseUndone
	for _, u := range now.Undone {
		if u.Moved == "" {
			continue
		}
		if to := t.pool.PreventMove(u.Moved); to != nil {
			t.move(u.Moved, to)
			t.pool.RenewWorkers(true)
		}
	}
	if back {
		if p := t.pool.Settings().Processes; now.Processes < p {
			t.pool.Scale(now.Processes)
		}
		t.pool.RenewWorkers(false)
	}
	t.followSettings()
}

// FunctionMoved begins a new epoch for the pool.
func (t *tuner) FunctionMoved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followSettings()
}

// beginEpoch begins a new epoch; mu is held.
func (t *tuner) beginEpoch() {
	t.level = autotune.Level{Settings: settingsOf(t.pool), Isolated: strings.Join(t.pool.IsolatedFunctions(), ",")}
	functions := t.pool.FunctionNames()
	passed := make(map[string]int64)
	if last := t.pool.Epoch.Load(); last != nil {
		for i, name := range functions {
			passed[name] = last.PassedCalls(i)
		}
	}
	number := t.controller.InForce(time.Since(telemetry.ProcessStart), t.level, passed)
	t.pool.Epoch.Store(dispatch.NewEpoch(number, len(functions), t.pool.CallFailed))
}

// followSettings begins a new epoch if the pool's settings have changed; mu is held.
func (t *tuner) followSettings() {
	now := settingsOf(t.pool)
	if t.pool.Epoch.Load() == nil || now != t.level.Settings || strings.Join(t.pool.IsolatedFunctions(), ",") != t.level.Isolated {
		t.beginEpoch()
	}
}

// logUndone logs each change that is reverted now, once.
func (t *tuner) logUndone(before, now []autotune.Undone, err error) {
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
			t.unsavedUndone = true
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
			t.unsavedUndone = true
		}
	}
}
