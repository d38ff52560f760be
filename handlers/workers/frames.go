package workers

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/drover-run/drover/triggers"
)

// The wire protocol: docs/worker-protocol.md is the contract.

// Protocol is the version that this daemon speaks.
const Protocol = 1

// The types of frames.
const (
	frameHello  = 1
	frameInvoke = 2
	frameCancel = 3
	frameStop   = 4

	frameReady  = 65
	frameFailed = 66
	frameResult = 67
	frameLog    = 68
	frameStats  = 69
)

// The statuses of a result.
const (
	statusOK       = 0
	statusFailure  = 1
	statusReject   = 2
	statusRetry    = 3
	statusNotTried = 4
	statusState    = 5 // done, with a new state for the session
)

// withState in the flags of an INVOKE says that its session's state is before meta.
const withState = 1

// noState is the length of a state that there is none of.
const noState = math.MaxUint32

const (
	headSize   = 4 + 1
	invokeSize = 4 + 2 + 2 + 4 + 8 + 8 + 4
	resultSize = 4 + 1 + 4
)

// DefaultMaxFrame is the largest frame, in bytes: a 128 MiB body and its attributes.
const DefaultMaxFrame = 130 << 20

type hello struct {
	Protocol   int             `json:"protocol"`
	App        string          `json:"app"`
	Functions  []helloFunction `json:"functions"`
	Threads    int             `json:"threads"`
	Coroutines int             `json:"coroutines"`
	MaxFrame   int             `json:"max_frame"`
}

type helloFunction struct {
	Name     string `json:"name"`
	Module   string `json:"module"`
	Function string `json:"function"`
}

type ready struct {
	PID       int    `json:"pid"`
	Version   string `json:"version"`
	Functions []struct {
		Name string `json:"name"`
		Kind string `json:"kind"` // sync or async
	} `json:"functions"`
}

type failed struct {
	Summary string `json:"summary"`
	Detail  string `json:"detail"`
}

type outcome struct {
	Summary string  `json:"summary"`
	Detail  string  `json:"detail"`
	After   float64 `json:"after"` // seconds
}

type logLine struct {
	ID     int64  `json:"id"` // -1: of no invocation
	Level  string `json:"level"`
	Logger string `json:"logger"`
	Text   string `json:"text"`
}

// stats is what a worker has measured since it told last.
type stats struct {
	Period int64   `json:"period_us"` // between two measurements
	Lags   []int64 `json:"lags_us"`   // of the event loop
}

const (
	// maxLags bounds the measurements in one frame.
	maxLags = 1000
	// maxMissed bounds those that are made up for the ones in a frame that were late.
	maxMissed = 10_000
)

// waits are how long callbacks had to wait that were due every period. While the
// loop was blocked none was measured: those that were due then would have waited
// a period less, one after the other. Without them a loop that is blocked half of
// the time would look fine nine times in ten.
func (s stats) waits() iter.Seq[time.Duration] {
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

func appendHead(out []byte, kind byte, size int) []byte {
	out = binary.LittleEndian.AppendUint32(out, uint32(1+size))
	return append(out, kind)
}

func appendJSON(out []byte, kind byte, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("writing a frame of type %d: %w", kind, err)
	}
	return append(appendHead(out, kind, len(text)), text...), nil
}

func appendID(out []byte, kind byte, id uint32) []byte {
	return binary.LittleEndian.AppendUint32(appendHead(out, kind, 4), id)
}

// invokeFrameSize is the size of the frame that appendInvoke writes, less its head.
func invokeFrameSize(m *triggers.Message) (meta, total int) {
	meta = 3*4 + len(m.ID) + len(m.Subject) + len(m.OrderingKey)
	for name, value := range m.Attributes {
		meta += 2*4 + len(name) + len(value)
	}
	return meta, invokeSize + meta + len(m.Body)
}

func appendInvoke(out []byte, id uint32, c *call) []byte {
	m := c.message
	meta, total := invokeFrameSize(m)
	flags := uint16(0)
	if c.stateful {
		flags |= withState
		total += 4 + len(c.state)
	}
	out = appendHead(out, frameInvoke, total)
	out = binary.LittleEndian.AppendUint32(out, id)
	out = binary.LittleEndian.AppendUint16(out, c.handler.index)
	out = binary.LittleEndian.AppendUint16(out, flags)
	out = binary.LittleEndian.AppendUint32(out, uint32(min(m.Attempt, math.MaxInt32)))
	out = binary.LittleEndian.AppendUint64(out, uint64(microseconds(m.Enqueued)))
	out = binary.LittleEndian.AppendUint64(out, uint64(microseconds(c.deadline)))
	out = binary.LittleEndian.AppendUint32(out, uint32(meta))
	if c.stateful {
		out = appendState(out, c.state)
	}
	out = appendText(out, m.ID)
	out = appendText(out, m.Subject)
	out = appendText(out, m.OrderingKey)
	if len(m.Attributes) > 0 {
		for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
			out = appendText(appendText(out, name), m.Attributes[name])
		}
	}
	return append(out, m.Body...)
}

func appendState(out, state []byte) []byte {
	if state == nil {
		return binary.LittleEndian.AppendUint32(out, noState)
	}
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(state))), state...)
}

// cutState cuts the state off the payload of a result; nil is none.
func cutState(payload []byte) (state, output []byte, err error) {
	if len(payload) < 4 {
		return nil, nil, fmt.Errorf("%w: a result with a state, of %d bytes", errFrame, len(payload))
	}
	n, rest := binary.LittleEndian.Uint32(payload), payload[4:]
	switch {
	case n == noState:
	case uint64(n) > uint64(len(rest)):
		return nil, nil, fmt.Errorf("%w: a state of %d bytes in a result of %d", errFrame, n, len(payload))
	default:
		state, rest = rest[:n:n], rest[n:]
	}
	if len(rest) == 0 {
		rest = nil
	}
	return state, rest, nil
}

func appendText(out []byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(text))), text...)
}

func microseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// parser cuts what a worker writes into frames.
type parser struct {
	buffer     []byte
	start, end int
	max        int
}

var errFrame = errors.New("it broke the protocol")

// space returns where the next bytes are to be read to.
func (p *parser) space() []byte {
	if p.start == p.end {
		p.start, p.end = 0, 0
	}
	need := headSize
	if p.end-p.start >= 4 {
		need = 4 + int(binary.LittleEndian.Uint32(p.buffer[p.start:]))
	}
	if p.start > 0 && (p.end == len(p.buffer) || p.start+need > len(p.buffer)) {
		copy(p.buffer, p.buffer[p.start:p.end])
		p.start, p.end = 0, p.end-p.start
	}
	if need > len(p.buffer) {
		// Read as it comes: a length alone must not make us take memory.
		larger := make([]byte, min(need, 2*len(p.buffer)))
		copy(larger, p.buffer[:p.end])
		p.buffer = larger
	}
	return p.buffer[p.end:]
}

// next returns the next whole frame, or kind 0. The payload is valid until the
// next call of space.
func (p *parser) next() (kind byte, payload []byte, err error) {
	have := p.buffer[p.start:p.end]
	if len(have) < 4 {
		return 0, nil, nil
	}
	length := int(binary.LittleEndian.Uint32(have))
	if length < 1 || length > p.max {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes; 1 to %d are allowed", errFrame, length, p.max)
	}
	if len(have) < 4+length {
		return 0, nil, nil
	}
	p.start += 4 + length
	return have[4], have[headSize : 4+length], nil
}
