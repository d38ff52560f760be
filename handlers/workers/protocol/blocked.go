package protocol

import (
	"math"
	"time"
)

// MaxPlace bounds the place in a BLOCKED, in bytes.
const MaxPlace = 4 << 10

// BlockedFrame reports that the worker's event loop is blocked. A worker sends it when it
// detects a block, and again when the block is over; or only then.
type BlockedFrame struct {
	Block    uint32 `json:"block"`     // the same both times, another for each block of a worker
	ID       int64  `json:"id"`        // of the invocation; -1: not known
	Function int    `json:"function"`  // its index in LOAD; -1: not known
	Message  string `json:"message"`   // its id
	Took     int64  `json:"took_us"`   // so far
	Asleep   int64  `json:"asleep_us"` // what of that its thread waited for something, about
	Over     bool   `json:"over"`
	GIL      bool   `json:"gil"` // C code kept all other threads of the worker from running, too
	Place    string `json:"place"`
	Stack    string `json:"stack"` // "" if it was reported before for that place
}

// Time is how long the loop has been blocked.
func (b BlockedFrame) Time() time.Duration {
	return time.Duration(min(b.Took, math.MaxInt64/1000)) * time.Microsecond
}

// Computes reports whether the block is computation, as opposed to waiting.
func (b BlockedFrame) Computes() bool { return b.Asleep < b.Took/2 }
