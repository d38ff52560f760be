package autoscale

import (
	"math"
	"time"

	"github.com/drover-run/drover/scaler/hostinfo"
)

// contention measures how others use the machine, and how long the workers' threads wait for a core.
// One goroutine uses it.
type contention struct {
	reader machineReader
	delays delaysReader

	// Of the last read.
	at      time.Time
	machine hostinfo.Machine
	ours    time.Duration // the processor time of the workers and the daemon until then

	// Means since the read before it.
	others   float64       // the cores that others used; 0 if unknown
	runQueue float64       // the threads that waited for a core; NaN if unknown
	waited   time.Duration // their total waiting time since the first read
	// The parts of the time in which the workers and the daemon were ready to run that a hypervisor
	// and a CPU quota took; 0 if unknown.
	stolen, throttled float64
}

// machineReader is a hostinfo.Reader, and delaysReader a hostinfo.Delays.
type machineReader interface {
	ReadMachine() (hostinfo.Machine, error)
}

type delaysReader interface {
	WaitedSince(pids []int) (waited time.Duration, known bool)
}

func newContention() *contention {
	return &contention{reader: hostinfo.New(), delays: hostinfo.NewDelays(), runQueue: math.NaN()}
}

// read updates the fields. ours is the processor time of the workers and the daemon so far, and pids
// are the workers.
func (c *contention) read(at time.Time, ours time.Duration, pids []int) {
	machine, _ := c.reader.ReadMachine() // values that cannot be read are unknown
	waited, known := c.delays.WaitedSince(pids)
	if elapsed := at.Sub(c.at); !c.at.IsZero() && elapsed > 0 {
		c.others, c.runQueue = 0, math.NaN()
		if others := hostinfo.OthersBusy(c.machine, machine, ours-c.ours, elapsed); !math.IsNaN(others) {
			c.others = others
		}
		if known {
			c.runQueue = waited.Seconds() / elapsed.Seconds()
			c.waited += waited
		}
		c.stolen = hostinfo.StolenPart(c.machine, machine)
		c.throttled = hostinfo.ThrottledPart(c.machine, machine, ours-c.ours, elapsed)
	}
	c.at, c.machine, c.ours = at, machine, ours
}
