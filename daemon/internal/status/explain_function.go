package status

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/bodymemory"
	"github.com/drover-run/drover/triggers"
)

// maxUndone bounds the text of a reverted change, in characters.
const maxUndone = 1000

// explainFunction explains a function, in all instances.
func (v *View) explainFunction(ctx context.Context, name string) []api.Explanation {
	e := api.Explanation{Function: name}
	for _, f := range v.Running() {
		if f.Name == name {
			e.State, e.Text = v.LimitingFactor(f, time.Now())
			e.Notes = append(problemNotes(f.ListProblems()), v.backlogNotes(ctx, f)...)
			e.Notes = append(e.Notes, flightNotes(f)...)
			e.Details = slotDetails(f)
			v.addScaling(&e, "workers of "+f.App)
			return []api.Explanation{e}
		}
	}
	fleet := v.Fleet()
	if fleet == nil {
		e.State, e.Text = v.Phase(), "the daemon is "+v.Phase()
		return []api.Explanation{e}
	}
	ready := fleet.CountInstances()
	e.State, e.Text = "receiving", withNoun(int64(ready.Ready), "instance runs", "instances run")+" the function; each is explained below"
	if ready.Ready == 0 {
		e.State, e.Text = api.PhaseStarting, "no instance is ready"
		if ready.Failing != "" {
			e.Text += ": " + ready.Failing
		}
	}
	if p := v.StoreProblem(v.Config().Functions[name].Trigger.ConnectionName()); p != nil {
		e.State, e.Text = "blocked", p.OneLine()
	}
	if b := v.Backlogs.ReadBacklog(ctx, name, statusMaxAge); b.Ready >= 0 {
		e.Notes = append(e.Notes, BacklogNote(b))
	}
	v.addScaling(&e, "instances")
	return append([]api.Explanation{e}, v.queryInstances(ctx, name, "function")...)
}

// LimitingFactor returns what limits a function. Of several limits it returns the strongest.
func (v *View) LimitingFactor(f *apps.Function, now time.Time) (state, why string) {
	s := f.Status()
	use := f.Share.Use()
	switch {
	case v.Phase() == api.PhaseStopping:
		return api.PhaseStopping, "the daemon is stopping"
	case s.Stopped:
		return api.StateStopped, "it is disabled, because its code does not load: " + f.LoadError().Error()
	case v.StoreProblem(f.Connection) != nil:
		return api.StateBlocked, v.StoreProblem(f.Connection).OneLine()
	case s.Paused:
		return api.StatePaused, pausedReason(f.Name, s.PausedUntil)
	case !s.Disconnected.IsZero():
		return api.StateUnreachable, fmt.Sprintf("its source has been unreachable for %v", now.Sub(s.Disconnected).Round(time.Second)) + reasonSuffix(s.ReceiveError)
	case blockingProblem(s.Problems) != nil:
		return api.StateBlocked, blockingProblem(s.Problems).OneLine()
	case s.Gate == api.GateShut:
		why := "its app is down"
		if shut, ok := f.Handler.(interface{ ShutReason() string }); ok && shut.ShutReason() != "" {
			why += ": " + shut.ShutReason()
		}
		return api.StateAppDown, why + "; nothing is received until it is up"
	case f.Pool != nil && f.Pool.Stats().Wanted > 0 && f.Pool.Stats().Ready == 0:
		return api.StateNoWorker, fmt.Sprintf("no worker is ready; starting: %d, restarted after a crash: %d", f.Pool.Stats().Starting, countRestarts(f))
	case f.Memory.Waits():
		return api.StateMemory, fmt.Sprintf("it waits for memory: %s, %d MiB of it by this function; in_flight_memory is the limit", bodymemory.UsageText(v.Bodies()), f.Memory.Used()>>20)
	case use.Limit > 0 && use.Used >= use.Limit:
		return api.StateFull, fmt.Sprintf("its slots are in use, %d of %d: its own concurrency is the limit", use.Used, use.Limit)
	case use.All >= use.Capacity && f.Pool != nil:
		return api.StateFull, fmt.Sprintf("the slots of app %s are in use, %d of %d%s: the workers are the limit", f.App, use.All, use.Capacity, v.sharersText(f))
	case use.All >= use.Capacity:
		return api.StateFull, fmt.Sprintf("its slots are in use, %d of %d: its concurrency is the limit", use.All, use.Capacity)
	}
	room := use.Capacity - use.All
	if use.Limit > 0 {
		room = min(room, use.Limit-use.Used)
	}
	return api.StateReceiving, "no limit applies: it waits for messages, with " + withNoun(int64(room), "free slot", "free slots")
}

func countRestarts(f *apps.Function) (n int) {
	for cause, of := range f.Pool.Stats().Restarts {
		if !cause.WithoutFault() {
			n += of
		}
	}
	return n
}

// sharersText returns the functions that use slots of the same pool, as text.
func (v *View) sharersText(f *apps.Function) string {
	var parts []string
	for _, other := range v.Running() {
		if other.Pool != f.Pool {
			continue
		}
		if used := other.Share.Used(); used > 0 {
			parts = append(parts, fmt.Sprintf("%d by %s", used, other.Name))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func (v *View) backlogNotes(ctx context.Context, f *apps.Function) (notes []string) {
	b := v.Backlogs.ReadBacklog(ctx, f.Name, statusMaxAge)
	if b.Ready < 0 {
		notes = append(notes, "its source does not report its backlog")
	} else {
		notes = append(notes, BacklogNote(b))
	}
	if noter, ok := f.Trigger.(triggers.Noter); ok {
		notes = append(notes, noter.Notes()...)
	}
	if n, next := f.WaitingRetries(time.Now()); n > 0 {
		notes = append(notes, fmt.Sprintf("%s for a retry, the next in %v", withNoun(int64(n), "failed message waits", "failed messages wait"), time.Until(next).Round(time.Second)))
	}
	return notes
}

// BacklogNote returns a backlog as text. Its Ready must be known.
func BacklogNote(b autoscale.BacklogReading) string {
	text := withNoun(b.Ready, "message waits", "messages wait") + " at its source"
	if !b.Oldest.IsZero() {
		text += fmt.Sprintf(", the oldest for %v", max(time.Since(b.Oldest), 0).Round(time.Second))
	}
	if b.More != nil {
		text += fmt.Sprintf("; %d are scheduled, %d dead", b.More.Scheduled, b.More.Dead)
	}
	return text
}

// flightNotes returns the messages in flight, and the settings that were reverted.
func flightNotes(f *apps.Function) (notes []string) {
	if n := f.Share.Use().Claims; n > 0 {
		notes = append(notes, withNoun(int64(n), "received message waits", "received messages wait")+" for a slot")
	}
	if oldest, found := f.OldestInFlight(); found {
		notes = append(notes, fmt.Sprintf("%d in flight, the oldest for %v: %s", f.Stats.InFlight(), time.Since(oldest.Received).Round(time.Millisecond), oldest.Message.ID))
	}
	if f.Pool == nil {
		return notes
	}
	if t := f.Pool.TuningState(); t != nil {
		if text := apps.CoresText(t.Kinds[f.Name], t.CoreShare); text != "" {
			notes = append(notes, text)
		}
		for _, u := range t.Undone {
			notes = append(notes, "reverted in app "+f.App+": "+oneLine(u.Text()))
		}
	}
	return notes
}

// slotDetails returns the numbers of slots and workers.
func slotDetails(f *apps.Function) (details []string) {
	use := f.Share.Use()
	limit := use.Limit
	if limit == 0 {
		limit = use.Capacity
	}
	details = append(details, fmt.Sprintf("slots in use: %d of at most %d", use.Used, limit))
	if f.Pool != nil {
		s := f.Pool.Stats()
		text := fmt.Sprintf("workers: %d ready, %d starting, %d retiring, %d wanted", s.Ready, s.Starting, s.Retiring, s.Wanted)
		if s.Spare > 0 {
			text += fmt.Sprintf(", %d spare", s.Spare)
		}
		text += fmt.Sprintf("; the libraries of each use %s", withNoun(int64(f.Pool.Settings().CoreShare), "core", "cores"))
		details = append(details, text)
	}
	return details
}

// addScaling adds the scaler's latest decision on a target, if there is one.
func (v *View) addScaling(e *api.Explanation, about string) {
	latest, found := v.Decisions.AllDecisions()[about]
	if !found {
		return
	}
	e.Notes = append(e.Notes, about+": "+latest.Sentence)
	e.Details = append(e.Details, fmt.Sprintf("%s, decided %v ago:\n%s", about, time.Since(latest.At).Round(time.Second), strings.TrimRight(latest.Text, "\n")))
}

// oneLine returns a text as one line of at most maxUndone characters.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if utf8.RuneCountInString(text) > maxUndone {
		text = string([]rune(text)[:maxUndone-3]) + "..."
	}
	return text
}

// blockingProblem returns the problem that prevents receiving; nil if there is none.
func blockingProblem(problems []api.FunctionProblem) *api.FunctionProblem {
	for i := range problems {
		if problems[i].Blocks {
			return &problems[i]
		}
	}
	return nil
}

// problemNotes returns the problems that do not stop the function from receiving.
func problemNotes(problems []api.FunctionProblem) (notes []string) {
	for _, p := range problems {
		if !p.Blocks {
			notes = append(notes, p.OneLine())
		}
	}
	return notes
}
