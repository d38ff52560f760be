package triggers

import "time"

const (
	// ahead is the work that is held ready: what is settled in this time.
	ahead = 100 * time.Millisecond
	// rateOver is how long the rate of settlements is measured over.
	rateOver = 500 * time.Millisecond
	// fasterOver is after how many settlements a higher rate is taken up.
	fasterOver = 32
)

// Rate is how many messages a trigger holds ready beyond those that are asked
// for, by the measured rate of settlements: what is settled in a tenth of a
// second. A slow function has none, since its messages would better be another
// instance's. The zero Rate holds none. It is not safe for use by several
// goroutines.
type Rate struct {
	ready   int
	settled int // since marked
	marked  time.Time
	fast    time.Time // when the last of so many was settled
}

// Ready is how many to hold now. It falls when it is asked for.
func (r *Rate) Ready() int {
	now := time.Now()
	if over := now.Sub(r.marked); over > rateOver {
		r.ready = int(int64(r.settled) * int64(ahead) / int64(over))
		r.marked, r.settled, r.fast = now, 0, now
	}
	return r.ready
}

// Settled notes a settlement. The prefetch rises with it.
func (r *Rate) Settled() {
	if r.settled++; r.settled%fasterOver != 0 {
		return
	}
	now := time.Now()
	r.ready = max(r.ready, int(fasterOver*ahead/max(now.Sub(r.fast), time.Microsecond)))
	r.fast = now
}
