package batches

import "sync/atomic"

// Counts counts the batches of a function. The zero value is zero. It may be used by many
// goroutines.
type Counts struct {
	calls, messages, splits atomic.Int64
}

// Totals are the counts so far.
type Totals struct {
	Calls    int64 // of the function
	Messages int64 // in them
	Splits   int64 // calls that failed as a whole, and ran again in halves
}

func (c *Counts) addCall(messages int) {
	c.calls.Add(1)
	c.messages.Add(int64(messages))
}

// ReadTotals returns the counts.
func (c *Counts) ReadTotals() Totals {
	return Totals{Calls: c.calls.Load(), Messages: c.messages.Load(), Splits: c.splits.Load()}
}
