package sources

import (
	"context"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/timer"
)

const (
	// timerSystem is the name in traces; the conventions define none.
	timerSystem = "timer"
	// noTimerMessages is why nothing can be sent to a timer.
	noTimerMessages = "is run by a timer, which receives no messages; to run it now: drover invoke"
	// timersDir is the directory of timers in data_dir.
	timersDir = "timers"
)

// timers are schedules. They have neither outputs nor connections of their own.
type timers struct{}

func (timers) sourceOf(t configs.Trigger) source {
	if t.Timer == nil {
		return nil
	}
	return timerSource{t.Timer}
}

func (timers) outputOf(configs.Output) output { return nil }

func (timers) connectionOf(Config, string) connection { return nil }

// timerSource is the schedule of a function.
type timerSource struct{ *configs.TimerTrigger }

func (s timerSource) messageTraits() Traits {
	t := Traits{
		Entity:     dispatch.Entity{System: timerSystem, Name: s.Schedule},
		CannotSend: noTimerMessages, CannotPeek: noTimerMessages,
	}
	if at, err := s.Parse(); err == nil {
		now := time.Now().In(at.Zone())
		t.SampleBody = timer.NewBody(false, &timer.ScheduleStatus{Next: at.Next(now), LastUpdated: now})
	}
	return t
}

func (s timerSource) openTrigger(ctx context.Context, set *Set, t TriggerConfig) (triggers.Trigger, error) {
	at, err := s.Parse()
	if err != nil {
		return nil, err
	}
	store, err := s.openStore(ctx, set, t)
	if err != nil {
		return nil, err
	}
	cfg := timer.Config{Name: t.Function, Schedule: at, UseMonitor: s.IsMonitored(), Store: store, Log: t.Log}
	if s.RunOnStartup {
		cfg.StartedAt = set.Started
	}
	return timer.Open(cfg), nil
}

// timerKeeper is a connection that keeps the states of timers.
type timerKeeper interface {
	openTimerStore(ctx context.Context, s *Set, settings *configs.TimerTrigger, t TriggerConfig) (timer.Store, error)
}

// openStore opens what keeps the state. Several instances on one machine share the directory of
// their parent.
func (s timerSource) openStore(ctx context.Context, set *Set, t TriggerConfig) (timer.Store, error) {
	if s.Connection != "" {
		keeper, ok := findConnection(set.Config, s.Connection).(timerKeeper)
		if !ok {
			return nil, errNoKind
		}
		return keeper.openTimerStore(ctx, set, s.TimerTrigger, t)
	}
	dir := set.Settings.DataDir
	if set.Parent != "" {
		dir = set.Parent
	}
	return timer.NewDirectory(filepath.Join(dir, timersDir), t.Function, t.Log)
}

func (timerSource) openPeeker(context.Context, Config) (triggers.Peeker, func() error, error) {
	return emptyPeeker{}, func() error { return nil }, nil
}

func (timerSource) openDeadLetters(context.Context, Config, bool) (triggers.DeadLetters, func() error, error) {
	return emptyDeadLetters{}, func() error { return nil }, nil
}
