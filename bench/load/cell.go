// Package load measures systems that run functions on the messages of a queue: drover and its
// peers, with the same work, one system at a time. A cell is one measurement, a contender
// one system with its settings. The functions count their calls in files that the driver reads, so
// no system's own figures are used.
package load

import (
	"cmp"
	"fmt"
	"runtime"
	"strconv"
	"time"
)

// Kinds of work.
const (
	CPU    = "cpu"    // a function that computes
	Wait   = "wait"   // a blocking function that waits: time.Sleep, time.sleep
	Awaits = "awaits" // an async function that waits: asyncio.sleep
)

// InFlight is how many messages of a function that waits are in flight at most, where a
// contender is given a number.
const InFlight = 1000

// Cell is one row of a table.
type Cell struct {
	Work string
	Time time.Duration // of the work of one message; 0 is a no-op
	Size int           // bytes of a body
	Rate int           // messages a second that arrive; 0 is a full queue
}

func (c Cell) String() string {
	kind := c.Work + " " + c.Time.String()
	if c.Time == 0 {
		kind = "no-op"
	}
	return fmt.Sprintf("%s, %s, %s", kind, SizeText(c.Size), c.load())
}

// SizeText formats a number of bytes: 128 B, 10 kB.
func SizeText(size int) string {
	if size >= 1000 && size%1000 == 0 {
		return strconv.Itoa(size/1000) + " kB"
	}
	return strconv.Itoa(size) + " B"
}

func (c Cell) load() string {
	if c.Rate == 0 {
		return "full queue"
	}
	return strconv.Itoa(c.Rate) + "/s"
}

// Ideal is the rate that the work allows: of all cores, or of InFlight messages at a time. It is 0
// for a no-op, which has no bound of its own.
func (c Cell) Ideal() float64 { return c.idealOf(InFlight) }

// idealOf is Ideal with another number of messages in flight.
func (c Cell) idealOf(inFlight int) float64 {
	most := 0.0
	switch {
	case c.Time == 0:
		return 0
	case c.Work == CPU:
		most = float64(runtime.NumCPU()) / c.Time.Seconds()
	default:
		most = float64(inFlight) / c.Time.Seconds()
	}
	if c.Rate > 0 {
		most = min(most, float64(c.Rate))
	}
	return most
}

// Waits reports a function that waits.
func (c Cell) Waits() bool { return c.Work != CPU && c.Time > 0 }

// Impossible reports a rate of arrivals that this machine's cores cannot handle.
func (c Cell) Impossible() bool {
	return c.Work == CPU && float64(c.Rate)*c.Time.Seconds() > 0.9*float64(runtime.NumCPU())
}

// maxFill bounds the bytes that are put into a queue.
const maxFill = 1_500_000_000

// fillFor is how many messages a contender needs in its queue.
func (c Cell) fillFor(of Contender, during time.Duration) int {
	rate := min(of.Fastest, cmp.Or(c.idealOf(cmp.Or(of.InFlight, InFlight)), of.Fastest))
	return min(max(int(1.2*rate*during.Seconds()), 100), maxFill/max(c.Size, 1))
}
