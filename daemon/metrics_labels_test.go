package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// mayBe returns the values that each label may have: names from the configuration of the test
// below, and the words of a list.
func mayBe() map[string][]string {
	words := map[string][]string{
		"function": {"f"}, "app": {"f app"}, "of": {"instances", "workers of f app"},
		"verdict": {"done", "retry", "reject", "release", "abandoned"},
		"reason":  {"function", "attempts", "size"},
		"status":  {"204"},
		"state":   {"ready", "starting", "retiring", "draining", "spare"},
		"result":  {"done", "refused"},
		"kind":    {"resident", "anonymous", "proportional", "attempts", "dead_letters", "output", "rights", "unsettled"},
	}
	for _, cause := range process.Causes {
		words["cause"] = append(words["cause"], string(cause))
	}
	for _, bound := range scaler.Bounds {
		words["bound"] = append(words["bound"], string(bound))
	}
	return words
}

// Texts from messages, and texts from functions about them, never appear in the metrics, and so in
// no label.
func TestNoLabelComesFromAMessage(t *testing.T) {
	const needle = "needle\x1b[2J\"}"
	d, queue, _ := measuredDaemon(t, func(_ context.Context, m *triggers.Message) ([]byte, error) {
		switch string(m.Body) {
		case "reject" + needle:
			return nil, handlers.Reject(&handlers.Failure{Summary: needle, Detail: needle})
		case "fail" + needle:
			return nil, errors.New(needle)
		case "misload" + needle:
			return nil, &handlers.LoadError{Summary: needle, Detail: needle}
		}
		return []byte(needle), nil
	}, nil)
	for _, body := range []string{"", "reject", "fail"} {
		queue.Send(triggers.Message{
			ID: needle + body, Body: []byte(body + needle), Subject: needle, OrderingKey: needle + body,
			Attributes: map[string]string{needle: needle, "traceparent": needle},
		})
	}
	d.decisions.SetDecision("instances", time.Now(), testDecision())
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(queue.Dead()) < 2; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 2 were rejected", len(queue.Dead()))
		}
	}
	queue.Send(triggers.Message{ID: needle, Body: []byte("misload" + needle)})
	for deadline := time.Now().Add(patience); !d.Status()[0].Stopped; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the function has not stopped")
		}
	}
	families := look(t, d)
	values := mayBe()
	seen := 0
	for name, family := range families {
		if strings.Contains(family.String(), "needle") {
			t.Errorf("%s has something of a message: %v", name, family)
		}
		if !strings.HasPrefix(name, "drover_") {
			continue
		}
		for _, m := range family.Metric {
			for _, l := range m.Label {
				seen++
				if !slices.Contains(values[l.GetName()], l.GetValue()) {
					t.Errorf("%s has the label %s=%q; known are %v", name, l.GetName(), l.GetValue(), values[l.GetName()])
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d labels were looked at", seen)
	}
}

// Texts from the reports of instances do not appear, either: unknown words are dropped.
func TestNoLabelComesFromAReport(t *testing.T) {
	f := instances.NewFleet(nil, slog.New(slog.DiscardHandler))
	f.SetProvisioner(countless{})
	f.AddReport(1, []byte(`{"functions": {"f": {"Name": "f", "Rejections": {"needle": 1}, "Responses": {"needle": 1, "20": 1}, "Gate": "needle", "Handler": "needle"}},
		"apps": {"f app": {"restarts": {"needle": 1, "exit": 2}}}}`))
	d := New(nil)
	d.fleet = f
	families := look(t, d)
	values := mayBe()
	for name, family := range families {
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if strings.HasPrefix(name, "drover_") && !slices.Contains(values[l.GetName()], l.GetValue()) {
					t.Errorf("%s has the label %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
	if n := sum(families["drover_worker_restarts_total"], "cause", "exit"); n != 2 {
		t.Errorf("%v restarts, want 2; there is %v", n, slices.Sorted(maps.Keys(families)))
	}
}

// countless is a provisioner without instances.
type countless struct{}

func (countless) Count(context.Context) (scaler.Count, error) { return scaler.Count{}, nil }
func (countless) Set(context.Context, int) error              { return nil }
