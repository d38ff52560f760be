package load

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drover-run/drover/bench/proc"
	"github.com/drover-run/drover/bench/work"

	"github.com/drover-run/drover/bench/rig"
)

// Memory is the proportional memory of all processes of a contender except an external broker, in bytes.
type Memory struct{ Idle, InFlight int64 }

// memoryFor is how long a message is in flight.
const memoryFor = 6 * time.Second

// MeasureMemory measures a contender idle, after it has handled a few messages, and with InFlight messages of 1 kB in flight.
func MeasureMemory(ctx context.Context, c Contender, kind string) (m Memory, err error) {
	cell := Cell{Work: kind, Time: memoryFor, Size: 1000}
	err = withSystem(ctx, c, cell, func(ctx context.Context, run Run, s System) error {
		if err := s.Start(ctx); err != nil {
			return err
		}
		if err := s.Send(ctx, 4, 0); err != nil {
			return err
		}
		if err := waitForCounts(ctx, run, startLimit, func(c work.Counts) bool { return c.Ended == 4 }); err != nil {
			return fmt.Errorf("the first messages were not handled: %w", err)
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
		inFlight := uint64(0)
		if err := waitForCounts(ctx, run, memoryFor, func(c work.Counts) bool {
			inFlight = max(inFlight, c.Started-c.Ended)
			return c.Started-c.Ended == InFlight
		}); err != nil {
			return fmt.Errorf("at most %d of %d messages were in flight: %w", inFlight, InFlight, err)
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
