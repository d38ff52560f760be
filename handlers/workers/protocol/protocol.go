// Package protocol is the wire protocol between the daemon and a worker: the frames, their maximum
// sizes, and their encoding. docs/worker-protocol.md is the contract.
package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"
)

// Version is the protocol version of this daemon.
const Version = 4

// Kind is the type of a frame.
type Kind byte

// The frames that the daemon sends.
const (
	Hello   Kind = 1
	Load    Kind = 2
	Invoke  Kind = 3
	Cancel  Kind = 4
	Drain   Kind = 5
	Fork    Kind = 6
	Set     Kind = 7
	Credit  Kind = 8
	Profile Kind = 9
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
	Part     Kind = 76
	Profiled Kind = 77
)

var names = map[Kind]string{
	Hello: "HELLO", Load: "LOAD", Invoke: "INVOKE", Cancel: "CANCEL", Drain: "DRAIN", Fork: "FORK", Set: "SETTINGS", Credit: "CREDIT", Profile: "PROFILE",
	Welcome: "WELCOME", Ready: "READY", Failed: "FAILED", Result: "RESULT", Log: "LOG", Stats: "STATS", Forked: "FORKED", Blocked: "BLOCKED", Alive: "ALIVE", Replace: "REPLACE", Imported: "IMPORTED", Part: "PART", Profiled: "PROFILED",
}

func (k Kind) String() string {
	if name, known := names[k]; known {
		return name
	}
	return fmt.Sprintf("frame of type %d", byte(k))
}

// The capabilities in HELLO and WELCOME.
const (
	CanCancel       = "cancel"        // a worker ends cancelled calls
	CanLog          = "log"           // the output and logs of functions are sent by LOG
	CanStats        = "stats"         // measurements of the worker are sent by STATS
	CanSessionState = "session_state" // functions get and set the state of sessions
	CanFork         = "fork"          // a worker can be a template
	CanSettings     = "settings"      // a worker accepts other numbers of threads and coroutines while it runs
	CanMeasures     = "measures"      // the daemon requests measurements of calls
	CanProperties   = "properties"    // functions can set properties of their results
	CanBlocked      = "blocked"       // BLOCKED reports blocks of the event loop
	CanHeartbeat    = "heartbeat"     // a worker sends ALIVE every second
	CanImports      = "imports"       // a worker reports the files that it has loaded by IMPORTED
	CanOutputs      = "outputs"       // functions send messages to named outputs
	CanOrigin       = "origin"        // functions get the source's own fields of a message
	CanAzure        = "azure"         // a worker runs the functions of function apps
	CanStream       = "stream"        // responses are sent in parts, by PART, as CREDIT allows
	CanBatch        = "batch"         // functions take batches of messages
	CanProfile      = "profile"       // a worker samples the stacks of calls: PROFILE starts and ends it, PROFILED has the result
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
	Batch    Status = 6 // a verdict on each message of a batch

	// described is added to Done and State if the result has properties, and sent if the function
	// sends messages to named outputs.
	described Status = 128
	sent      Status = 64
)

// The maximum frame sizes, in bytes of type and payload.
const (
	// DefaultMax is the size of an INVOKE and a RESULT: a body of 128 MiB and its attributes.
	DefaultMax = 130 << 20
	// MaxLoad is the size of a LOAD, a READY and a PROFILED.
	MaxLoad = 8 << 20
	// MaxOutcome is the size of a FAILED, and of a RESULT that is not a success.
	MaxOutcome = 1 << 20
	// MaxSmall is the size of all other frames.
	MaxSmall = 256 << 10
)

// frameLimit returns the maximum size of a frame; maximum applies to INVOKE and RESULT.
func frameLimit(kind Kind, maximum int) int {
	switch kind {
	case Invoke, Result:
		return maximum
	case Load, Ready, Profiled:
		return MaxLoad
	case Failed:
		return MaxOutcome
	}
	return MaxSmall
}

// ErrProtocol is wrapped by errors of a peer that broke the protocol.
var ErrProtocol = errors.New("it broke the protocol")

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}

// HelloFrame is the first frame of the daemon.
type HelloFrame struct {
	Protocol     int      `json:"protocol"`
	MaxFrame     int      `json:"max_frame"`
	Capabilities []string `json:"capabilities"`
}

// WelcomeFrame is the worker's answer.
type WelcomeFrame struct {
	Protocol     int      `json:"protocol"`
	PID          int      `json:"pid"`
	Language     string   `json:"language"` // for logs, like Version
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
}

// LoadFrame describes the code to load.
type LoadFrame struct {
	App        string     `json:"app"` // the directory of the code
	Functions  []Function `json:"functions"`
	Threads    int        `json:"threads"`
	Coroutines int        `json:"coroutines"`
	// Template requests a template: a worker that runs no calls, and from which workers are forked.
	Template bool `json:"template,omitempty"`
}

// SettingsFrame has new settings; calls in flight continue.
type SettingsFrame struct {
	Threads    int `json:"threads"`
	Coroutines int `json:"coroutines"`
	// Threaded are the async functions, by their index in LOAD, that must run in threads,
	// where they do not block the event loop.
	Threaded []uint16 `json:"threaded,omitempty"`
	// Revoked are the functions, by index, whose unstarted calls must be answered with NotTried.
	Revoked []uint16 `json:"away,omitempty"`
}

// Function is one function of an app. Name is drover's, and unique in the app.
type Function struct {
	Name     string `json:"name"`
	Module   string `json:"module"`
	Function string `json:"function"`
	// Results sets the handling of its results; omitted if they are sent. Messages for named
	// outputs are sent in any case.
	Results Results `json:"results,omitempty"`
	// Outputs are the names of its named outputs, in the order of the configuration. A worker with
	// CanOutputs is required.
	Outputs []string `json:"outputs,omitempty"`
	// Origin requests the source's own fields of each message. A worker with CanOrigin is required.
	Origin bool `json:"origin,omitempty"`
	// Azure describes a function of a function app, as docs/worker-protocol.md defines it; nil for
	// other functions. A worker with CanAzure is required.
	Azure json.RawMessage `json:"azure,omitempty"`
	// Reply is set if its results answer requests whose senders wait: they may be sent in parts.
	Reply bool `json:"reply,omitempty"`
	// Batch is the maximum number of messages of a call; 0: the function takes one message, not a
	// batch. A worker with CanBatch is required.
	Batch int `json:"batch,omitempty"`
}

// Results is the handling of a function's results.
type Results string

// With the zero value, results are sent.
const (
	Dropped Results = "dropped" // they are discarded: the worker does not encode them
	Shown   Results = "shown"   // they are shown to a person; a value that cannot be encoded is not a failure
)

// ReadyFrame reports that the code is loaded.
type ReadyFrame struct {
	// Functions are the functions of LOAD, in the same order.
	Functions []struct {
		Name string `json:"name"`
		Kind string `json:"kind"` // sync or async
	} `json:"functions"`
	// Unforkable is why the worker cannot be a template, if it supports forking; "" if it
	// can.
	Unforkable string `json:"unforkable,omitempty"`
	// StacksSignal is the signal on which the worker writes the stacks of all its threads to
	// standard error, in any state; 0 if there is none.
	StacksSignal int `json:"stacks_signal,omitempty"`
}

// ForkedFrame is a template's answer to FORK.
type ForkedFrame struct {
	PID   int    `json:"pid"`
	Error string `json:"error"` // "" if it forked
}

// FailedFrame reports that the code does not load.
type FailedFrame struct {
	Summary string `json:"summary"`
	Detail  string `json:"detail"` // the traceback
}

// Outcome is the payload of a RESULT that is not a success.
type Outcome struct {
	Summary string  `json:"summary"`
	Detail  string  `json:"detail"`
	After   float64 `json:"after"` // seconds
}

// ReplaceFrame requests a replacement of the worker that sends it.
type ReplaceFrame struct {
	Why string `json:"why"`
}

// ImportedFrame reports the files of the app on which the worker's code depends.
type ImportedFrame struct {
	// Paths are the files that it has loaded, directories that count with all their contents,
	// and modules, without a suffix, that were searched there and not found.
	Paths []string `json:"paths"`
}

// LogFrame is a line that a function, or code around it, printed or logged.
type LogFrame struct {
	ID     int64  `json:"id"` // -1: not from an invocation
	Level  string `json:"level"`
	Logger string `json:"logger"`
	Text   string `json:"text"`
	// Invocation is the ID of the call that the function knows, in a function app; empty elsewhere.
	Invocation string `json:"invocation,omitempty"`
}

// StatsFrame has a worker's measurements since its last STATS.
type StatsFrame struct {
	Period int64   `json:"period_us"` // between two measurements
	Lags   []int64 `json:"lags_us"`   // of the event loop
	// GIL has, for each function: its index in LOAD, the number of samples while it ran, and in
	// how many of them the GIL was held for long.
	GIL [][3]int64 `json:"gil,omitempty"`
	// Delays has sums over some calls of each function; of an async one, over steps of them.
	Delays []CallDelays `json:"delays_us,omitempty"`
}

// CallDelays has, in µs: the index of a function in LOAD, and sums over calls: their time, the part
// of it in which they computed, the part in which they were ready and waited for a core, and the part
// in which they waited for the GIL, as estimated and at most.
type CallDelays [6]int64

// FunctionIndex returns the index of the function.
func (d CallDelays) FunctionIndex() int64 { return d[0] }

// isValid reports whether the parts are within the time, and the time within ten days.
func (d CallDelays) isValid() bool {
	const mostTime = 10 * 86400e6
	return slices.Min(d[:]) >= 0 && d[1] <= mostTime && slices.Max(d[2:]) <= d[1] && d[2]+d[3]+d[5] <= d[1] && d[4] <= d[5]
}

const (
	// maxLags bounds the measurements in one frame.
	maxLags = 1000
	// maxAfter bounds the wait of a RESULT of status Retry, in seconds: 30 days.
	maxAfter = 30 * 86400
	// maxMissed bounds the measurements that are added for late ones in a frame.
	maxMissed = 10_000
)

// LoopWaits yields how long callbacks waited that were due every period. While the loop was blocked,
// nothing was measured. For each period of a block, LoopWaits adds a wait that is one period
// shorter. Without these, a loop that is blocked half of the time would seem fine in nine of ten
// measurements.
func (s StatsFrame) LoopWaits() iter.Seq[time.Duration] {
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

// DecodeFrame decodes the JSON of a frame.
func DecodeFrame(kind Kind, payload []byte, into any) error {
	if err := json.Unmarshal(payload, into); err != nil {
		return protocolError("a %v that is no JSON: %w", kind, err)
	}
	switch v := into.(type) {
	case *StatsFrame:
		if len(v.Lags) > maxLags {
			return protocolError("a %v of %d lags, where %d are the most", kind, len(v.Lags), maxLags)
		}
		for _, looks := range v.GIL {
			if looks[0] < 0 || looks[2] < 0 || looks[1] < looks[2] {
				return protocolError("a %v with gil %v, where there are an index, looks, and no more that found it held", kind, looks)
			}
		}
		for _, d := range v.Delays {
			if !d.isValid() {
				return protocolError("a %v with delays_us %v, where there are an index, a time, and no more than that in the other numbers", kind, d)
			}
		}
	case *BlockedFrame:
		if v.Took < 0 || len(v.Place) > MaxPlace {
			return protocolError("a %v of %d µs and with a place of %d bytes, where %d are the most", kind, v.Took, len(v.Place), MaxPlace)
		}
	case *ProfiledFrame:
		return v.check()
	case *Outcome:
		if v.After < 0 || v.After > maxAfter {
			return protocolError("a %v with after %v, where 0 to %d seconds are allowed", kind, v.After, maxAfter)
		}
	}
	return nil
}
