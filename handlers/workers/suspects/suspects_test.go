package suspects

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/worker"
)

func newRegistry(start func() (*worker.Worker, error)) *Registry {
	return New(Config{
		Functions: []worker.Function{{Name: "f"}, {Name: "g"}}, Start: start, StartTimeout: time.Minute, Log: slog.New(slog.DiscardHandler),
	})
}

func TestRecords(t *testing.T) {
	r := newRegistry(nil)
	m := Message{0, "m"}
	if r.RecordOf(m) != (Record{}) {
		t.Error("a new registry knows a message")
	}
	r.MarkSuspect(m)
	if now := r.RecordOf(m); !now.RunsAlone() || now.Killer {
		t.Errorf("a suspect: %+v", now)
	}
	for _, other := range []Message{{1, "m"}, {0, "n"}} {
		if r.RecordOf(other).RunsAlone() {
			t.Errorf("%+v is taken for %+v", other, m)
		}
	}
	r.clearRecord(m, false) // it has failed, and killed nothing
	if r.RecordOf(m) != (Record{}) {
		t.Errorf("a suspect that killed nothing: %+v", r.RecordOf(m))
	}
	r.MarkKiller(m)
	r.clearRecord(m, false)
	if !r.RecordOf(m).Killer {
		t.Error("a killer that failed once more is not remembered")
	}
	r.clearRecord(m, true)
	if r.RecordOf(m) != (Record{}) {
		t.Error("a killer that completed is remembered")
	}
	r.MarkKiller(Message{0, ""})
	if r.RecordOf(Message{0, ""}).RunsAlone() {
		t.Error("all messages without an id run alone since one of them has killed a worker")
	}
}

func TestRecordsAreBounded(t *testing.T) {
	r := newRegistry(nil)
	for i := range maxRecords + 10 {
		r.MarkSuspect(Message{0, strconv.Itoa(i)})
	}
	for i, want := range map[int]bool{0: false, 9: false, 10: true, maxRecords + 9: true} {
		if got := r.RecordOf(Message{0, strconv.Itoa(i)}).RunsAlone(); got != want {
			t.Errorf("message %d is remembered: %v", i, got)
		}
	}
	if n := len(*r.records.Load()); n != maxRecords || len(r.order) != n {
		t.Errorf("%d records, %d in order; want %d", n, len(r.order), maxRecords)
	}
}

// A call whose worker ended through no fault of the call runs again without using an attempt. A
// call that blocked its worker, or may have, runs alone.
func TestSpare(t *testing.T) {
	gone := errors.New("gone")
	for name, test := range map[string]struct {
		lost  worker.Loss
		alone bool
	}{
		"no fault of its own":     {worker.Loss{Err: gone, Again: true}, false},
		"killed together":         {worker.Loss{Err: gone}, false},
		"it blocked the others":   {worker.Loss{Err: gone, Culprit: true, Known: true}, true},
		"somebody did, perhaps":   {worker.Loss{Err: gone, Again: true, Suspect: true}, true},
		"somebody else is known":  {worker.Loss{Err: gone, Again: true, Known: true}, false},
		"killed by somebody else": {worker.Loss{Err: gone, Outside: true}, false},
	} {
		r := newRegistry(nil)
		m := Message{1, "m"}
		err := r.JudgeLost(m, &test.lost)
		if again := errors.Is(err, handlers.ErrRunAgain); again != test.alone || r.RecordOf(m).RunsAlone() != test.alone {
			t.Errorf("%s: %v, %+v", name, err, r.RecordOf(m))
		}
		if lost := (*worker.Loss)(nil); !test.alone && (!errors.As(err, &lost) || !errors.Is(lost.Err, gone)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A message that cannot run alone, because no worker starts or its time is up, keeps its record.
func TestAloneWithoutAWorker(t *testing.T) {
	refused := errors.Join(errors.New("no process"), handlers.ErrNotTried)
	r := newRegistry(func() (*worker.Worker, error) { return nil, refused })
	m := Message{0, "m"}
	r.MarkSuspect(m)
	never := func(*worker.Worker) ([]byte, error) {
		t.Error("it was tried without a worker")
		return nil, nil
	}
	if _, err := r.RunAlone(t.Context(), m, never); !errors.Is(err, handlers.ErrNotTried) || !r.RecordOf(m).RunsAlone() {
		t.Errorf("%v, %+v", err, r.RecordOf(m))
	}
	for range suspectLanes {
		<-r.unproven.lanes // others run in all of them
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.RunAlone(ctx, m, never); !errors.Is(err, handlers.ErrRunAgain) || !r.RecordOf(m).RunsAlone() {
		t.Errorf("%v, %+v", err, r.RecordOf(m))
	}
	r.WaitIdle()
}
