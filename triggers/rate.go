package triggers

import "time"

const (
	// ahead is the amount of work that is prefetched: as many messages as are settled in this time.
	ahead = 100 * time.Millisecond
	// rateOver is the time over which the rate of settlements is measured.
	rateOver = 500 * time.Millisecond
	// fasterOver is the number of settlements after which a higher rate takes effect.
	fasterOver = 32
)

// Rate computes how many messages a trigger prefetches, from the measured rate of
// settlements: as many as are settled in a tenth of a second. A slow function prefetches none,
// so that other instances get its messages. The zero Rate prefetches none. It is not safe for
// concurrent use.
type Rate struct {
	ready   int
	settled int // since marked
	marked  time.Time
	fast    time.Time // when settled last reached a multiple of fasterOver
}

// Ready returns how many messages to prefetch now. The value falls only in this call.
func (r *Rate) Ready() int {
	now := time.Now()
	if over := now.Sub(r.marked); over > rateOver {
		r.ready = int(int64(r.settled) * int64(ahead) / int64(over))
		r.marked, r.settled, r.fast = now, 0, now
	}
	return r.ready
}

// Settled counts a settlement. It may raise the prefetch.
func (r *Rate) Settled() {
	if r.settled++; r.settled%fasterOver != 0 {
		return
	}
	now := time.Now()
	r.ready = max(r.ready, int(fasterOver*ahead/max(now.Sub(r.fast), time.Microsecond)))
	r.fast = now
}
