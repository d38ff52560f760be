package load

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/drover-run/drover/bench/proc"
	"github.com/drover-run/drover/bench/work"

	"github.com/drover-run/drover/bench/rig"
)

// Memory is the proportional memory of all processes of a contender except an external broker, in bytes.
type Memory struct {
	Idle, InFlight int64
	Messages       int // that were in flight
}

const (
	// memoryFor is how long a message is in flight.
	memoryFor = 8 * time.Second
	// reachesWithin is how long it may take until InFlight messages are in flight. A contender that runs
	// fewer at a time is measured then.
	reachesWithin = 5 * time.Second
)

// MeasureMemory measures a contender idle, after it has handled a few messages, and with InFlight messages of 1 kB in flight, or
// as many as it runs at a time.
func MeasureMemory(ctx context.Context, c Contender, kind string) (m Memory, err error) {
	cell := Cell{Work: kind, Time: memoryFor, Size: 1000}
	err = withSystem(ctx, c, Run{Cell: cell, OwnProgram: true}, func(ctx context.Context, run Run, s System) error {
		if err := s.Start(ctx); err != nil {
			return err
		}
		if err := s.Send(ctx, 4, 0); err != nil {
			return err
		}
		if err := waitForFirst(ctx, run, s, 4); err != nil {
			return err
		}
		if err := rig.Pause(ctx, time.Second); err != nil {
			return err
		}
		if m.Idle, err = memoryOf(s); err != nil {
			return err
		}
		if err := s.Send(ctx, InFlight, 0); err != nil {
			return err
		}
		if err := waitForCounts(ctx, run, reachesWithin, func(c work.Counts) bool {
			m.Messages = int(c.Started - c.Ended)
			return m.Messages == InFlight
		}); err != nil && !errors.Is(err, errTooLate) {
			return err
		}
		if m.Messages == 0 {
			return errors.New("no message was in flight")
		}
		m.InFlight, err = memoryOf(s)
		return err
	})
	return m, err
}

func memoryOf(s System) (int64, error) {
	p, err := s.Processes()
	if err != nil {
		return 0, err
	}
	return proc.Memory(slices.Concat(p.Daemon, p.Workers))
}
