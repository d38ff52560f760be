package daemon

import (
	"context"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler/hostinfo"
	"github.com/drover-run/drover/triggers"
)

// This file bounds the memory of the daemon: a budget for the bodies of messages that
// all functions hold, and a garbage collector that follows them.

const (
	// bodyShare is the part of the memory limit that bodies may take by default.
	bodyShare = 4
	// unknownBodies is the budget where the machine's memory is not known.
	unknownBodies = 512 << 20
	// leastBodies is the smallest budget that is chosen by default.
	leastBodies = 16 << 20
)

// bodyBudget is how many bytes of bodies a daemon of a configuration holds at most.
func bodyBudget(cfg *configs.Config) int64 {
	if cfg.InFlightMemory > 0 {
		return int64(cfg.InFlightMemory)
	}
	found, err := hostinfo.New().Look()
	if err != nil || found.MemoryLimit == 0 {
		return unknownBodies
	}
	return max(int64(found.MemoryLimit/bodyShare), leastBodies)
}

// instanceBodies is the same for one of several instances, which share the memory.
func instanceBodies(cfg *configs.Config) int64 {
	return max(bodyBudget(cfg)/int64(max(cfg.Scale.Instances.Max, 1)), leastBodies)
}

const (
	// manyBodies is from how many bytes on the garbage collector follows them, and
	// usualGC what it does below that: Go's own default.
	manyBodies, usualGC = 32 << 20, 100
	// bodyGC is how much garbage is allowed in percent of the bodies, and leastGC the
	// least of all that lives: less would cost more than it saves.
	bodyGC, leastGC = 20, 20
	// gcStep is the least change that is made, and gcAgain when it is looked again after
	// bodies were given back.
	gcStep, gcAgain = 10, time.Second
)

// gcPercent is what the garbage collector is set to while so many bytes of bodies are
// held, and so many lived when it ran last.
func gcPercent(bodies, live int64) int {
	if bodies < manyBodies {
		return usualGC
	}
	others := max(live-bodies, 0)
	return max(leastGC, int((bodyGC*bodies+usualGC*others)/(bodies+others)))
}

// followMemory has the garbage collector run earlier while many bytes of bodies are
// held, until ctx ends. By default it lets as much garbage grow as there is that lives,
// which doubles large bodies; they cost it nothing to look at, since nothing in them
// refers to anything. A program that has set another percentage keeps it.
func followMemory(ctx context.Context, b *triggers.Budget) {
	before := debug.SetGCPercent(usualGC)
	if before != usualGC {
		debug.SetGCPercent(before)
		return
	}
	now := usualGC
	defer func() {
		if now != usualGC {
			debug.SetGCPercent(usualGC)
		}
	}()
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	high, cycles := int64(0), uint64(0) // the most that was held since the last collection
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-b.Steps():
		case <-again.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(heap)
		used := b.Used()
		// What was given back is garbage, and lives on in the figure of the last collection.
		if n := heap[1].Value.Uint64(); n != cycles {
			high, cycles = used, n
		}
		if high = max(high, used); high-used >= manyBodies {
			again.Reset(gcAgain)
		}
		if want := gcPercent(high, int64(heap[0].Value.Uint64())); max(want, now)-min(want, now) >= gcStep {
			debug.SetGCPercent(want)
			now = want
		}
	}
}

// beside runs something until the returned function is called, which waits for its end.
func beside(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// bodies is the budget; an empty one where others do the work, or before the start.
func (d *Daemon) bodies() *triggers.Budget {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.budget == nil {
		return new(triggers.Budget)
	}
	return d.budget
}

// memoryNote says how much of the budget is used.
func memoryNote(b *triggers.Budget) string {
	return fmt.Sprintf("%d of %d MiB in flight", b.Used()>>20, b.Limit()>>20)
}
