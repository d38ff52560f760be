package instances

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func TestFleet(t *testing.T) {
	f := NewFleet(map[string]triggers.Trigger{"f": memory.New(time.Hour).Trigger()}, slog.New(slog.DiscardHandler))
	report := func(id int, r FunctionReport) {
		r.Name, r.Latency = "f", new(telemetry.Latencies)
		text, err := json.Marshal(Report{Functions: map[string]FunctionReport{"f": r}})
		if err != nil {
			t.Fatal(err)
		}
		f.AddReport(id, text)
	}
	report(1, FunctionReport{FunctionStatus: api.FunctionStatus{FunctionCounts: api.FunctionCounts{Received: 10, Done: 8, InFlight: 2}}, Taken: 5, Slots: 4, Used: 2})
	report(2, FunctionReport{FunctionStatus: api.FunctionStatus{FunctionCounts: api.FunctionCounts{Received: 7, Done: 6, InFlight: 1, Failed: 3}}, Taken: 7, Slots: 4, Used: 1})
	select {
	case <-f.SlotsFull():
		t.Error("Full received, with slots free")
	default:
	}
	report(1, FunctionReport{FunctionStatus: api.FunctionStatus{FunctionCounts: api.FunctionCounts{Received: 12, Done: 8, InFlight: 4}}, Taken: 9, Slots: 4, Used: 4})
	select {
	case <-f.SlotsFull():
	default:
		t.Error("an instance is full, and Full did not receive")
	}
	got := f.FunctionTotals()["f"]
	if got.Received != 19 || got.Done != 14 || got.InFlight != 5 || got.Taken != 16 || got.Slots != 8 || got.Used != 5 || got.Failed != 3 {
		t.Errorf("together they are %+v", got)
	}
	f.InstanceEnded(1) // with four in flight
	got = f.FunctionTotals()["f"]
	if got.Received != 19 || got.Abandoned != 4 || got.Done != 14 || got.InFlight != 1 || got.Taken != 16 || got.Slots != 4 || got.Used != 1 {
		t.Errorf("with one gone they are %+v", got)
	}
	f.AddReport(3, json.RawMessage("nonsense"))
	if n := len(f.FunctionStatuses()); n != 1 {
		t.Errorf("%d functions after a report that is nonsense", n)
	}
}

// The usage and the counts of workers remain when their instance ends; the current values do not.
func TestFleetOfApps(t *testing.T) {
	f := NewFleet(nil, slog.New(slog.DiscardHandler))
	report := func(id int, s apps.Status) {
		text, err := json.Marshal(Report{Apps: map[string]apps.Status{"app": s}})
		if err != nil {
			t.Fatal(err)
		}
		f.AddReport(id, text)
	}
	var waits telemetry.Histogram
	waits.Add(time.Second)
	one := apps.Status{
		Ready: 2, Starting: 1, Restarts: map[process.Cause]int{process.CauseExit: 1}, StartUp: time.Second, Waits: waits.Snapshot(),
		Usage: process.Usage{CPU: time.Minute, Known: true, Memory: process.Memory{Resident: 30, Anonymous: 20, Proportional: 10}, Largest: 20},
	}
	other := one
	other.StartUp, other.Usage.Largest, other.Restarts = 2*time.Second, 25, map[process.Cause]int{process.CauseExit: 2, process.CauseSignal: 1}
	report(1, one)
	report(2, other)
	got := f.AppStatuses()["app"]
	if got.Ready != 4 || got.Starting != 2 || got.StartUp != 2*time.Second || got.Waits.Count() != 2 || got.Restarts[process.CauseExit] != 3 || got.Restarts[process.CauseSignal] != 1 {
		t.Errorf("together they are %+v", got)
	}
	if u := got.Usage; u.CPU != 2*time.Minute || !u.Known || u.Memory != (process.Memory{Resident: 60, Anonymous: 40, Proportional: 20}) || u.Largest != 25 {
		t.Errorf("together they use %+v", u)
	}
	f.InstanceEnded(2)
	got = f.AppStatuses()["app"]
	if got.Ready != 2 || got.Waits.Count() != 2 || got.Restarts[process.CauseExit] != 3 || got.Usage.CPU != 2*time.Minute || got.Usage.Memory.Resident != 30 || got.Usage.Largest != 20 {
		t.Errorf("with one gone they are %+v", got)
	}
}
