// Package bodymemory bounds the memory of message bodies: with a budget for all functions
// together, and a garbage collector that is tuned to it.
package bodymemory

import (
	"context"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler/hostinfo"
	"github.com/drover-run/drover/triggers"
)

const (
	// bodyShare is the divisor of the memory limit that gives the default budget.
	bodyShare = 4
	// fallbackBodies is the budget, in bytes, if the machine's memory is unknown.
	fallbackBodies = 512 << 20
	// minBodies is the smallest default budget, in bytes.
	minBodies = 16 << 20
)

// DaemonLimit returns how many bytes of bodies a daemon of a configuration may hold.
func DaemonLimit(cfg *configs.Config) int64 {
	if cfg.InFlightMemory > 0 {
		return int64(cfg.InFlightMemory)
	}
	found, err := hostinfo.New().ReadMachine()
	if err != nil || found.MemoryLimit == 0 {
		return fallbackBodies
	}
	return max(int64(found.MemoryLimit/bodyShare), minBodies)
}

// InstanceLimit returns the same for one of several instances, which share the memory.
func InstanceLimit(cfg *configs.Config) int64 {
	return max(DaemonLimit(cfg)/int64(max(cfg.Scale.Instances.Max, 1)), minBodies)
}

const (
	// manyBodies is the number of bytes from which on the percentage of the garbage collector is
	// set. defaultGC is the percentage below that, Go's default.
	manyBodies, defaultGC = 32 << 20, 100
	// bodyGC is how much garbage is allowed, in percent of the bodies. minGC is the minimum in
	// percent of all live memory: collecting more often would cost more than it saves.
	bodyGC, minGC = 20, 20
	// gcStep is the smallest change that is made. gcDelay is the delay after which the percentage
	// is computed again when bodies were released.
	gcStep, gcDelay = 10, time.Second
)

// gcPercent returns the percentage for the garbage collector while bodies take that many bytes and
// the last collection left live bytes.
func gcPercent(bodies, live int64) int {
	if bodies < manyBodies {
		return defaultGC
	}
	others := max(live-bodies, 0)
	return max(minGC, int((bodyGC*bodies+defaultGC*others)/(bodies+others)))
}

// TuneGC makes the garbage collector run earlier while many bytes of bodies are held, until ctx
// ends. By default, garbage may grow to the size of the live memory, which doubles large bodies.
// Collecting them is cheap, since they contain no pointers. If the program has set another
// percentage, TuneGC does not change it.
func TuneGC(ctx context.Context, b *triggers.Budget) {
	before := debug.SetGCPercent(defaultGC)
	if before != defaultGC {
		debug.SetGCPercent(before)
		return
	}
	now := defaultGC
	defer func() {
		if now != defaultGC {
			debug.SetGCPercent(defaultGC)
		}
	}()
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	high, cycles := int64(0), uint64(0) // the maximum that was held since the last collection
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
		// Released bodies still count in the figure of the last collection.
		if n := heap[1].Value.Uint64(); n != cycles {
			high, cycles = used, n
		}
		if high = max(high, used); high-used >= manyBodies {
			again.Reset(gcDelay)
		}
		if want := gcPercent(high, int64(heap[0].Value.Uint64())); max(want, now)-min(want, now) >= gcStep {
			debug.SetGCPercent(want)
			now = want
		}
	}
}

// UsageText returns how much of a budget is used, as text.
func UsageText(b *triggers.Budget) string {
	return fmt.Sprintf("%d of %d MiB in flight", b.Used()>>20, b.Limit()>>20)
}
