package apps

import (
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/triggers"
)

// Status reports the function's counts since the daemon started, and its state.
func (f *Function) Status() api.FunctionStatus {
	c := f.Stats.ReadCounts()
	s := api.FunctionStatus{
		Name: f.Name, Handler: f.Describe,
		FunctionCounts: api.FunctionCounts{
			Received: c.Received, Done: c.Done, Retried: c.Retried, Rejected: c.Rejected, Released: c.Released, Abandoned: c.Abandoned,
			InFlight: c.InFlight, Lost: c.Lost, Failed: c.Failed,
		},
		Rejections: c.Rejections, ReceiveErrors: c.ReceiveErrors,
		Latency: c.Latency, Age: c.Age,
	}
	if f.Pool != nil {
		workers := f.Pool.Stats()
		s.Workers, s.SpareWorkers = workers.Ready, workers.Spare
	}
	if _, is := f.Handler.(*batches.Handler); is {
		t := f.Stats.Batches.ReadTotals()
		s.Batches = &api.BatchCounts{Calls: t.Calls, Messages: t.Messages, Splits: t.Splits}
	}
	s.Stopped = f.LoadError() != nil
	s.Paused, s.PausedUntil = f.PauseState()
	s.WaitsForMemory = f.Memory.Waits()
	if s.Disconnected, s.Reconnects = f.ConnectionState(time.Now()); !s.Disconnected.IsZero() {
		s.ReceiveError = f.ReceiveError()
	}
	s.Problems = f.ListProblems()
	if timed, ok := f.Trigger.(triggers.Scheduled); ok {
		s.NextDue, _ = timed.NextDue()
	}
	if answering, ok := f.Trigger.(triggers.Responder); ok {
		s.Responses = answering.ResponseCounts()
	}
	if gated, ok := f.Handler.(interface{ IsOpen() bool }); ok {
		s.Gate = gateWord(gated.IsOpen())
	}
	return s
}

func gateWord(open bool) string {
	if open {
		return api.GateOpen
	}
	return api.GateShut
}

// ListProblems returns the problems that need an operator, the oldest first.
func (f *Function) ListProblems() []api.FunctionProblem {
	out := SourceProblems(f.Trigger)
	for _, b := range f.ListBlockages() {
		kind := api.ProblemUnsettled
		if b.Output != "" {
			kind = api.ProblemOutput
		}
		out = append(out, api.FunctionProblem{Kind: kind, Text: b.Text, Since: b.Since, Messages: b.Messages, Message: b.Message, Blocks: b.Full})
	}
	slices.SortStableFunc(out, api.CompareProblems)
	return out
}

// SourceProblems returns the problems that a source reports.
func SourceProblems(source triggers.Trigger) (out []api.FunctionProblem) {
	if troubled, ok := source.(triggers.Troubled); ok {
		for _, t := range troubled.Troubles() {
			out = append(out, api.FunctionProblem{Kind: t.Kind, Text: t.Text, Since: t.Since})
		}
	}
	return out
}
