package protocol

import (
	"math"
	"time"
)

// MaxPlace bounds the place in a BLOCKED, in bytes.
const MaxPlace = 4 << 10

// BlockedFrame reports that the worker's event loop is blocked. A worker sends it when it
// detects a block, and again when the block ends; or only then.
type BlockedFrame struct {
	Block    uint32 `json:"block"`     // the same in both frames; each block of a worker has another one
	ID       int64  `json:"id"`        // of the invocation; -1: not known
	Function int    `json:"function"`  // its index in LOAD; -1: not known
	Message  string `json:"message"`   // its ID
	Took     int64  `json:"took_us"`   // so far
	Asleep   int64  `json:"asleep_us"` // about how much of Took the thread waited for something
	Over     bool   `json:"over"`
	GIL      bool   `json:"gil"` // C code kept all other threads of the worker from running
	Place    string `json:"place"`
	Stack    string `json:"stack"` // "" if it was reported earlier for that place
}

// Duration returns how long the loop has been blocked.
func (b BlockedFrame) Duration() time.Duration {
	return time.Duration(min(b.Took, math.MaxInt64/1000)) * time.Microsecond
}

// IsComputing reports whether the block is computation, not waiting.
func (b BlockedFrame) IsComputing() bool { return b.Asleep < b.Took/2 }
