// Package protocol is the wire protocol between the daemon and a worker: the
// frames, their sizes, how they are written and read. docs/worker-protocol.md is
// the contract.
package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"
)

// Version is the version that this daemon speaks.
const Version = 4

// Kind is the type of a frame.
type Kind byte

// The frames that the daemon sends.
const (
	Hello  Kind = 1
	Load   Kind = 2
	Invoke Kind = 3
	Cancel Kind = 4
	Drain  Kind = 5
	Fork   Kind = 6
	Set    Kind = 7
)

// The frames that a worker sends.
const (
	Welcome  Kind = 65
	Ready    Kind = 66
	Failed   Kind = 67
	Result   Kind = 68
	Log      Kind = 69
	Stats    Kind = 70
	Forked   Kind = 71
	Blocked  Kind = 72
	Alive    Kind = 73
	Replace  Kind = 74
	Imported Kind = 75
)

var names = map[Kind]string{
	Hello: "HELLO", Load: "LOAD", Invoke: "INVOKE", Cancel: "CANCEL", Drain: "DRAIN", Fork: "FORK", Set: "SETTINGS",
	Welcome: "WELCOME", Ready: "READY", Failed: "FAILED", Result: "RESULT", Log: "LOG", Stats: "STATS", Forked: "FORKED", Blocked: "BLOCKED", Alive: "ALIVE", Replace: "REPLACE", Imported: "IMPORTED",
}

func (k Kind) String() string {
	if name, known := names[k]; known {
		return name
	}
	return fmt.Sprintf("frame of type %d", byte(k))
}

// What a side can do, as it says in HELLO or WELCOME.
const (
	CanCancel       = "cancel"        // a worker ends calls that are cancelled
	CanLog          = "log"           // what functions print and log goes by LOG
	CanStats        = "stats"         // what the worker measures goes by STATS
	CanSessionState = "session_state" // functions get and set the state of sessions
	CanFork         = "fork"          // a worker can be a template
	CanSettings     = "settings"      // a worker accepts other numbers of threads and coroutines while it runs
	CanMeasures     = "measures"      // the daemon wants to know what calls use
	CanProperties   = "properties"    // functions give their results properties
	CanBlocked      = "blocked"       // BLOCKED reports what blocks the event loop
	CanHeartbeat    = "heartbeat"     // a worker sends ALIVE each second
	CanImports      = "imports"       // a worker names the files that it has loaded by IMPORTED
)

// Status is how a call ended.
type Status byte

// The statuses of a RESULT.
const (
	Done     Status = 0
	Failure  Status = 1
	Reject   Status = 2
	Retry    Status = 3
	NotTried Status = 4
	State    Status = 5 // done, with a new state for the session

	// described is added to Done and State where the result has properties.
	described Status = 128
)

// The largest frames, in bytes of type and payload.
const (
	// DefaultMax is that of an INVOKE and a RESULT: a 128 MiB body and its attributes.
	DefaultMax = 130 << 20
	// MaxLoad is that of a LOAD and a READY.
	MaxLoad = 8 << 20
	// MaxOutcome is that of a FAILED, and of a RESULT that is no success.
	MaxOutcome = 1 << 20
	// MaxSmall is that of all others.
	MaxSmall = 256 << 10
)

// limit is the largest frame of a kind, where max is that of INVOKE and RESULT.
func limit(kind Kind, maximum int) int {
	switch kind {
	case Invoke, Result:
		return maximum
	case Load, Ready:
		return MaxLoad
	case Failed:
		return MaxOutcome
	}
	return MaxSmall
}

// ErrProtocol is wrapped by what says that the other side broke the protocol.
var ErrProtocol = errors.New("it broke the protocol")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}

// HelloFrame is what the daemon begins with.
type HelloFrame struct {
	Protocol     int      `json:"protocol"`
	MaxFrame     int      `json:"max_frame"`
	Capabilities []string `json:"capabilities"`
}

// WelcomeFrame is the answer.
type WelcomeFrame struct {
	Protocol     int      `json:"protocol"`
	PID          int      `json:"pid"`
	Language     string   `json:"language"` // for people, as is Version
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
}

// LoadFrame says what code to load.
type LoadFrame struct {
	App        string     `json:"app"` // the directory of the code
	Functions  []Function `json:"functions"`
	Threads    int        `json:"threads"`
	Coroutines int        `json:"coroutines"`
	// Template asks for a worker that runs nothing and is forked from.
	Template bool `json:"template,omitempty"`
}

// SettingsFrame has the settings from now on; calls in flight continue.
type SettingsFrame struct {
	Threads    int `json:"threads"`
	Coroutines int `json:"coroutines"`
	// Threaded are the async functions, by their index in LOAD, that are to run on
	// threads, where they hold up nobody.
	Threaded []uint16 `json:"threaded,omitempty"`
	// Away are the functions, by index, whose calls that have not begun are answered with NotTried.
	Away []uint16 `json:"away,omitempty"`
}

// Function is one function of an app. Name is drover's, and unique in the app.
type Function struct {
	Name     string `json:"name"`
	Module   string `json:"module"`
	Function string `json:"function"`
	// Results is what becomes of what it returns; left out where it is sent.
	Results Results `json:"results,omitempty"`
}

// Results is what becomes of what a function returns.
type Results string

// The zero value has results sent.
const (
	Dropped Results = "dropped" // nobody takes them: the worker encodes none
	Shown   Results = "shown"   // they are shown to a person; what cannot be encoded is no failure
)

// ReadyFrame says that the code is loaded.
type ReadyFrame struct {
	// Functions are LOAD's, in their order.
	Functions []struct {
		Name string `json:"name"`
		Kind string `json:"kind"` // sync or async
	} `json:"functions"`
	// Unforkable says why the worker cannot be a template, if it knows how to; "" if
	// it can.
	Unforkable string `json:"unforkable,omitempty"`
	// StacksSignal is the signal at which the worker writes the stacks of all of its
	// threads to standard error, whatever they do; 0 if there is none.
	StacksSignal int `json:"stacks_signal,omitempty"`
}

// ForkedFrame is a template's answer to FORK.
type ForkedFrame struct {
	PID   int    `json:"pid"`
	Error string `json:"error"` // "" if it forked
}

// FailedFrame says that the code does not load.
type FailedFrame struct {
	Summary string `json:"summary"`
	Detail  string `json:"detail"` // the traceback
}

// Outcome is the payload of a RESULT that is no success.
type Outcome struct {
	Summary string  `json:"summary"`
	Detail  string  `json:"detail"`
	After   float64 `json:"after"` // seconds
}

// ReplaceFrame asks for another worker in the place of the one that sends it.
type ReplaceFrame struct {
	Why string `json:"why"`
}

// ImportedFrame names files of the app, without which the worker's code would be another.
type ImportedFrame struct {
	// Paths are those of files that it has loaded, of directories of which all counts, and
	// of modules, without an ending, that were looked for there and not found.
	Paths []string `json:"paths"`
}

// LogFrame is a line that a function, or the code around it, printed or logged.
type LogFrame struct {
	ID     int64  `json:"id"` // -1: of no invocation
	Level  string `json:"level"`
	Logger string `json:"logger"`
	Text   string `json:"text"`
}

// StatsFrame is what a worker has measured since its last STATS.
type StatsFrame struct {
	Period int64   `json:"period_us"` // between two measurements
	Lags   []int64 `json:"lags_us"`   // of the event loop
	// GIL has for functions: its index in LOAD, how often was looked while it ran, and
	// how often of those the lock that all threads share was held for long.
	GIL [][3]int64 `json:"gil,omitempty"`
}

const (
	// maxLags bounds the measurements in one frame.
	maxLags = 1000
	// maxAfter bounds the wait of a RESULT of status Retry, in seconds: 30 days.
	maxAfter = 30 * 86400
	// maxMissed bounds those that are made up for the ones in a frame that were late.
	maxMissed = 10_000
)

// Waits are how long callbacks had to wait that were due every period. While the
// loop was blocked none was measured: those that were due then would have waited
// a period less, one after the other. Without them a loop that is blocked half of
// the time would look fine nine times in ten.
func (s StatsFrame) Waits() iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		missed := 0
		for _, us := range s.Lags {
			if !yield(time.Duration(min(max(us, 0), math.MaxInt64/1000)) * time.Microsecond) {
				return
			}
			for us -= s.Period; s.Period > 0 && us > 0 && missed < maxMissed; us -= s.Period {
				missed++
				if !yield(time.Duration(min(us, math.MaxInt64/1000)) * time.Microsecond) {
					return
				}
			}
		}
	}
}

// Decode reads the JSON of a frame into a value of its kind.
func Decode(kind Kind, payload []byte, into any) error {
	if err := json.Unmarshal(payload, into); err != nil {
		return broken("a %v that is no JSON: %w", kind, err)
	}
	switch v := into.(type) {
	case *StatsFrame:
		if len(v.Lags) > maxLags {
			return broken("a %v of %d lags, where %d are the most", kind, len(v.Lags), maxLags)
		}
		for _, looks := range v.GIL {
			if looks[0] < 0 || looks[2] < 0 || looks[1] < looks[2] {
				return broken("a %v with gil %v, where there are an index, looks, and no more that found it held", kind, looks)
			}
		}
	case *BlockedFrame:
		if v.Took < 0 || len(v.Place) > MaxPlace {
			return broken("a %v of %d µs and with a place of %d bytes, where %d are the most", kind, v.Took, len(v.Place), MaxPlace)
		}
	case *Outcome:
		if v.After < 0 || v.After > maxAfter {
			return broken("a %v with after %v, where 0 to %d seconds are allowed", kind, v.After, maxAfter)
		}
	}
	return nil
}
