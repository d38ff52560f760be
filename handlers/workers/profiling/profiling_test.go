package profiling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a worker. answer is called when a profile ends.
type fake struct {
	t      *testing.T
	name   string
	cannot bool
	sent   []protocol.ProfileFrame
	answer func(number int64)
}

func (f *fake) Label() string             { return "worker " + f.name }
func (f *fake) HasCapability(string) bool { return !f.cannot }

func (f *fake) SendFrame(frame []byte) {
	var sent protocol.ProfileFrame
	if protocol.Kind(frame[4]) != protocol.Profile {
		f.t.Errorf("a %v", protocol.Kind(frame[4]))
	}
	if err := json.Unmarshal(frame[5:], &sent); err != nil {
		f.t.Error(err)
	}
	f.sent = append(f.sent, sent)
	if sent.Period == 0 && f.answer != nil {
		go f.answer(sent.Profile)
	}
}

// sampled is the result of a worker that found a stack n times.
func sampled(number int64, function string, n int64) *protocol.ProfiledFrame {
	return &protocol.ProfiledFrame{
		Profile: number, Lines: []protocol.ProfileLine{{Function: "unused"}, {Function: function, File: "a.py", Line: 2}},
		Stacks: []protocol.SampledStack{{Lines: []int{1}, ProfileCounters: protocol.ProfileCounters{Samples: n, Time: n * 10_000}}},
	}
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(7, 3)
		var all []*fake
		for _, name := range []string{"early", "late", "dead", "silent", "failing", "old"} {
			w := &fake{t: t, name: name, cannot: name == "old"}
			switch name {
			case "early", "late":
				w.answer = func(number int64) { s.Receive(w, sampled(number, "f", 2)) }
			case "failing":
				w.answer = func(number int64) { s.Receive(w, &protocol.ProfiledFrame{Profile: number, Error: "no stacks here"}) }
			}
			all = append(all, w)
			if name != "late" {
				s.Join(w)
				s.Join(w) // again, which has no effect
			}
		}
		go func() {
			time.Sleep(time.Second)
			s.Join(all[1])
			s.Leave(all[2])
		}()
		r, err := s.Run(t.Context(), 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"worker dead ended meanwhile; its samples are missing", "worker failing could not sample: no stacks here", "worker old cannot sample the stacks of calls",
			"worker silent did not send its samples within 5s; they are missing",
		}
		if !slices.Equal(r.Notes, want) {
			t.Errorf("notes %q", r.Notes)
		}
		if r.Workers != 2 || len(r.Stacks.All) != 1 || r.Stacks.Total() != (protocol.ProfileCounters{Samples: 4, Time: 40_000}) || r.Stacks.Lines[r.Stacks.All[0].Lines[0]].Function != "f" {
			t.Errorf("%+v", r)
		}
		begin, end := protocol.ProfileFrame{Profile: 7, Function: 3, Period: 10_000}, protocol.ProfileFrame{Profile: 7, Function: 3}
		for _, w := range all {
			want := []protocol.ProfileFrame{begin, end}
			switch w.name {
			case "dead":
				want = want[:1]
			case "old":
				want = nil
			}
			if !slices.Equal(w.sent, want) {
				t.Errorf("%s got %v, want %v", w.name, w.sent, want)
			}
		}
		s.Receive(all[3], sampled(7, "f", 1)) // too late
		s.Join(&fake{t: t, name: "after"})
	})
}

// A worker that drains sends its result before the profile ends.
func TestResultBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1, 0)
		w := &fake{t: t, name: "draining"}
		s.Join(w)
		s.Receive(w, sampled(2, "f", 1)) // of another profile
		s.Receive(w, sampled(1, "f", 1))
		s.Receive(w, sampled(1, "f", 1)) // a second result is dropped
		s.Leave(w)
		r, err := s.Run(t.Context(), time.Second)
		if err != nil || len(r.Notes) != 0 || r.Workers != 1 || r.Stacks.Total().Samples != 1 || len(w.sent) != 1 {
			t.Errorf("%+v, %v, %v", r, err, w.sent)
		}
	})
}

func TestInterruptedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1, 0)
		w := &fake{t: t, name: "silent"}
		s.Join(w)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := s.Run(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if len(w.sent) != 2 || w.sent[1].Period != 0 {
			t.Errorf("the worker got %v", w.sent)
		}
	})
}

func TestNoWorkerCanSample(t *testing.T) {
	s := New(1, 0)
	s.Join(&fake{t: t, name: "old", cannot: true})
	if _, err := s.Run(t.Context(), time.Hour); !errors.Is(err, ErrUnsupported) || !strings.HasPrefix(fmt.Sprint(err), "worker old: ") {
		t.Error(err)
	}
}

// The stacks of all workers together are bounded.
func TestStacksAreBounded(t *testing.T) {
	var s Stacks
	frame := &protocol.ProfiledFrame{}
	for i := range 200 {
		frame.Lines = append(frame.Lines, protocol.ProfileLine{Function: fmt.Sprint("f", i)})
	}
	for i := range protocol.MaxStacks {
		frame.Stacks = append(frame.Stacks, protocol.SampledStack{Lines: []int{i % 200, i / 200}, ProfileCounters: protocol.ProfileCounters{Samples: 1, Time: 10}})
	}
	s.Add(frame)
	s.Add(frame)
	if len(s.All) != protocol.MaxStacks || s.Lost.Samples != 0 || s.Total().Samples != 2*protocol.MaxStacks {
		t.Fatalf("%d stacks, lost %+v", len(s.All), s.Lost)
	}
	s.Add(sampled(1, "one more", 3))
	if len(s.All) != protocol.MaxStacks || s.Lost != (protocol.ProfileCounters{Samples: 3, Time: 30_000}) {
		t.Errorf("%d stacks, lost %+v", len(s.All), s.Lost)
	}
	many := &protocol.ProfiledFrame{}
	for i := range protocol.MaxProfileLines {
		many.Lines = append(many.Lines, protocol.ProfileLine{Line: int64(i)})
		if i%2 == 0 {
			many.Stacks = append(many.Stacks, protocol.SampledStack{Lines: []int{i}})
		}
	}
	var other Stacks
	other.Add(many)
	if len(other.Lines) != protocol.MaxStacks { // only those that stacks use
		t.Errorf("%d lines", len(other.Lines))
	}
}
