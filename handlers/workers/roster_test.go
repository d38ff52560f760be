package workers

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// A pool that is not running has no workers: the error of a call, and the free slots.
func newIdlePool(processes int) *Pool {
	return New(Config{
		Functions: []Function{{Name: "f"}}, Log: slog.New(slog.DiscardHandler),
		Settings: Settings{Processes: processes, Threads: 3, Coroutines: 7},
	})
}

func TestPickWithoutAWorker(t *testing.T) {
	disabled := &handlers.LoadError{Summary: "no module"}
	for name, test := range map[string]struct {
		change func(*Pool, context.CancelFunc)
		want   error
	}{
		"the caller's time is up":  {func(_ *Pool, cancel context.CancelFunc) { cancel() }, handlers.ErrNotTried},
		"the pool ends":            {func(p *Pool, _ context.CancelFunc) { p.roster.markEnded() }, handlers.ErrNotTried},
		"the code does not load":   {func(p *Pool, _ context.CancelFunc) { p.code.disableUnloaded(disabled); p.roster.wakeCallers() }, disabled},
		"it did not before it ran": {nil, disabled},
	} {
		p := newIdlePool(1)
		ctx, cancel := context.WithCancel(t.Context())
		if test.change == nil {
			p.code.disableUnloaded(disabled)
		}
		picked := make(chan error, 1)
		go func() {
			_, err := p.roster.pickWorker(ctx)
			picked <- err
		}()
		if test.change != nil {
			test.change(p, cancel)
		}
		select {
		case err := <-picked:
			if !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: it waits", name)
		}
		cancel()
	}
}

// The first call of a pool without workers starts one.
func TestPickStartsAWorker(t *testing.T) {
	p := newIdlePool(1)
	p.Scale(0)
	<-p.roster.wakeups
	if w, changed, err := p.roster.leastBusy(); w != nil || changed == nil || err != nil {
		t.Errorf("%v, %v, %v", w, changed, err)
	}
	select {
	case <-p.roster.wakeups:
	default:
		t.Error("the reconciler does not take a step")
	}
	if got := p.Settings().Processes; got != 1 {
		t.Errorf("%d workers are wanted", got)
	}
}

func TestRoomWithoutWorkers(t *testing.T) {
	for name, test := range map[string]struct {
		wanted      int
		disabled    bool
		sync, async int
	}{
		"none is wanted":                   {0, false, 3, 7},
		"one is wanted, and none is ready": {1, false, 0, 0},
		"the code does not load":           {1, true, 1, 1},
		"nor is one wanted":                {0, true, 3, 7},
	} {
		p := newIdlePool(1)
		p.Scale(test.wanted)
		if test.disabled {
			p.code.disableUnloaded(&handlers.LoadError{Summary: "no module"})
		}
		p.slots.resizeSlots()
		if sync, async := p.slots.sync.Capacity(), p.slots.async.Capacity(); sync != test.sync || async != test.async {
			t.Errorf("%s: room for %d and %d; want %d and %d", name, sync, async, test.sync, test.async)
		}
	}
}

// Set keeps settings for which 0 is passed. A function moves back from threads only once.
func TestSettings(t *testing.T) {
	p := newIdlePool(2)
	p.ApplySettings(Settings{Threads: 5})
	p.ApplySettings(Settings{Coroutines: 9})
	p.ApplySettings(Settings{CoreShare: 3})
	p.ApplySettings(Settings{})
	if got, want := p.Settings(), (Settings{2, 5, 9, 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	before := p.settings.runInThreads(0)
	if !p.settings.runOnLoop(0) || p.settings.runOnLoop(0) {
		t.Error("a function is moved back once")
	}
	if len(before.Threaded) != 1 || len(p.settings.current().Threaded) != 0 {
		t.Errorf("%v, %v", before.Threaded, p.settings.current().Threaded)
	}
}

// The code is known once the first worker has loaded it.
func TestReady(t *testing.T) {
	p := newIdlePool(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.WaitReady(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	loads := &worker.Worker{Handshake: worker.Handshake{Welcome: welcome(), Ready: ready("async")}}
	if p.code.recordLoad(loads) {
		t.Error("it is disabled by a worker that has loaded the code")
	}
	if err := p.WaitReady(t.Context()); err != nil || !p.IsAsync("f") || p.IsTunable() {
		t.Errorf("%v, async %v, tunable %v", err, p.IsAsync("f"), p.IsTunable())
	}
	if p.code.disableUnloaded(&handlers.LoadError{}) {
		t.Error("workers that die while they load have it given up, though it has loaded once")
	}
	fails := &worker.Worker{Handshake: worker.Handshake{Welcome: welcome(), Failed: failed("gone")}}
	if !p.code.recordLoad(fails) || p.code.recordLoad(fails) {
		t.Error("it is disabled once")
	}
	var loadError *handlers.LoadError
	if err := p.WaitReady(t.Context()); !errors.As(err, &loadError) || loadError.Summary != "gone" {
		t.Errorf("%v", err)
	}
}

func welcome() *protocol.WelcomeFrame { return &protocol.WelcomeFrame{Protocol: protocol.Version} }

func failed(summary string) *protocol.FailedFrame { return &protocol.FailedFrame{Summary: summary} }

func ready(kind string) *protocol.ReadyFrame {
	r := new(protocol.ReadyFrame)
	r.Functions = append(r.Functions, struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	}{"f", kind})
	return r
}
