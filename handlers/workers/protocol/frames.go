package protocol

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/drover-run/drover/triggers"
)

// The flags of an INVOKE.
const (
	withState  = 1 // the session's state comes before meta
	withOrigin = 2 // the source's own fields come before meta, after the state
)

// unmeasured is a time in a RESULT that was not measured.
const unmeasured = math.MaxUint32

// noState is the length that means no state.
const noState = math.MaxUint32

const (
	headSize   = 4 + 1
	invokeSize = 4 + 2 + 2 + 4 + 8 + 8 + 4
	resultSize = 4 + 1 + 3*4
)

func appendHead(out []byte, kind Kind, size int) []byte {
	out = binary.LittleEndian.AppendUint32(out, uint32(1+size))
	return append(out, byte(kind))
}

// AppendJSON appends a frame with a JSON payload. It returns an error if the frame is too large, or
// the value cannot be encoded.
func AppendJSON(out []byte, kind Kind, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("writing a %v: %w", kind, err)
	}
	if most := frameLimit(kind, DefaultMax); 1+len(text) > most {
		return nil, fmt.Errorf("a %v of %d bytes, where %d are the most", kind, 1+len(text), most)
	}
	return append(appendHead(out, kind, len(text)), text...), nil
}

// AppendCancel appends a CANCEL.
func AppendCancel(out []byte, id uint32) []byte {
	return binary.LittleEndian.AppendUint32(appendHead(out, Cancel, 4), id)
}

// AppendDrain appends a DRAIN.
func AppendDrain(out []byte) []byte { return appendHead(out, Drain, 0) }

// AppendFork appends a FORK. Three file descriptors are sent with it: the socket of the
// new worker, its standard output and its standard error. temporary is the directory that the
// worker creates for temporary files; empty if it has none of its own.
func AppendFork(out []byte, temporary string) []byte {
	return append(appendHead(out, Fork, len(temporary)), temporary...)
}

// Invocation is one call of a function.
type Invocation struct {
	ID       uint32
	Function uint16 // its index in LOAD
	Deadline time.Time
	Message  *triggers.Message
	Stateful bool   // it gets its session's state
	State    []byte // nil if there is none
	Origin   []byte // the source's own fields, from EncodeOrigin; nil if it gets none

	// Batch are the messages of a call with a batch, and Message is the first of them; nil for
	// other calls. Origins are the origins of the messages; nil if the function gets none.
	Batch   []*triggers.Message
	Origins [][]byte
}

// InvokeSize returns the size of a message's INVOKE in bytes, as max_frame counts it, without the
// state of a session and without the origin.
func InvokeSize(m *triggers.Message) int {
	return 1 + invokeSize + metaSize(m, m.Properties()) + len(m.Body)
}

// AppendInvoke appends an INVOKE.
func AppendInvoke(out []byte, i *Invocation) []byte {
	return append(AppendInvokeHead(out, i), i.Message.Body...)
}

// AppendInvokeHead appends an INVOKE without the message's body, which must follow.
func AppendInvokeHead(out []byte, i *Invocation) []byte {
	m := i.Message
	properties := m.Properties() // read once: the source may return another value next time
	meta := metaSize(m, properties)
	total := invokeSize + meta + len(m.Body)
	flags := uint16(0)
	if i.Stateful {
		flags |= withState
		total += 4 + len(i.State)
	}
	if i.Origin != nil {
		flags |= withOrigin
		total += 4 + len(i.Origin)
	}
	out = appendHead(out, Invoke, total)
	out = binary.LittleEndian.AppendUint32(out, i.ID)
	out = binary.LittleEndian.AppendUint16(out, i.Function)
	out = binary.LittleEndian.AppendUint16(out, flags)
	out = binary.LittleEndian.AppendUint32(out, uint32(min(m.Attempt, math.MaxInt32)))
	out = binary.LittleEndian.AppendUint64(out, uint64(unixMicros(m.Enqueued)))
	out = binary.LittleEndian.AppendUint64(out, uint64(unixMicros(i.Deadline)))
	out = binary.LittleEndian.AppendUint32(out, uint32(meta))
	if i.Stateful {
		out = appendState(out, i.State)
	}
	if i.Origin != nil {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(i.Origin)))
		out = append(out, i.Origin...)
	}
	return appendMeta(out, m, properties)
}

func appendState(out, state []byte) []byte {
	if state == nil {
		return binary.LittleEndian.AppendUint32(out, noState)
	}
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(state))), state...)
}

func appendText(out []byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(text))), text...)
}

func unixMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Reply is a parsed RESULT.
type Reply struct {
	ID     uint32
	Status Status
	Took   time.Duration // the wall time of the call
	// Measured is set if CPU and Held are known: the processor time of the call's own thread,
	// and how long the call had that thread, running or waiting. For an async call, both are
	// sums over its steps; for others, Held is Took.
	Measured  bool
	CPU, Held time.Duration
	Sent      bool   // messages for named outputs follow the state, if any
	Described bool   // properties precede the output, after these
	Payload   []byte // valid as long as the payload of the frame
}

// ReadResult parses the payload of a RESULT.
func ReadResult(payload []byte) (Reply, error) {
	if len(payload) < resultSize {
		return Reply{}, protocolError("a RESULT of %d bytes", len(payload))
	}
	r, err := readStatus(payload[4], len(payload))
	r.ID, r.Took, r.Payload = binary.LittleEndian.Uint32(payload), readMicros(payload[5:]), payload[resultSize:]
	if binary.LittleEndian.Uint32(payload[9:]) != unmeasured && binary.LittleEndian.Uint32(payload[13:]) != unmeasured {
		r.Measured, r.CPU, r.Held = true, readMicros(payload[9:]), readMicros(payload[13:])
	}
	return r, err
}

// readStatus returns a Reply with the status of a RESULT, or of a verdict in it, of size bytes.
func readStatus(status byte, size int) (Reply, error) {
	r := Reply{Status: Status(status)}
	r.Described, r.Sent = r.Status&described != 0, r.Status&sent != 0
	r.Status &^= described | sent
	switch {
	case r.Status > Batch, (r.Described || r.Sent) && r.Status != Done && r.Status != State:
		return r, protocolError("a RESULT of status %d", status)
	case r.Status != Done && r.Status != State && r.Status != Batch && 1+size > MaxOutcome:
		return r, protocolError("a RESULT of status %d and %d bytes, where %d are the most", r.Status, 1+size, MaxOutcome)
	}
	return r, nil
}

func readMicros(at []byte) time.Duration {
	return time.Duration(binary.LittleEndian.Uint32(at)) * time.Microsecond
}

// CutState splits the state off the payload of a RESULT of status State; nil is none.
func CutState(payload []byte) (state, output []byte, err error) {
	if len(payload) < 4 {
		return nil, nil, protocolError("a RESULT with a state, of %d bytes", len(payload))
	}
	n, rest := binary.LittleEndian.Uint32(payload), payload[4:]
	switch {
	case n == noState:
	case uint64(n) > uint64(len(rest)):
		return nil, nil, protocolError("a state of %d bytes in a RESULT of %d", n, len(payload))
	default:
		state, rest = rest[:n:n], rest[n:]
	}
	if len(rest) == 0 {
		rest = nil
	}
	return state, rest, nil
}

// readSize is the buffer space for one read.
const readSize = 256 << 10

// maxSpare is the largest buffer that is reused, in bytes.
const maxSpare = 4 << 20

// Parser splits a byte stream into frames.
type Parser struct {
	buffer     []byte
	start, end int
	max        int
}

// NewParser returns a Parser for frames of at most maximum bytes.
func NewParser(maximum int) *Parser {
	return &Parser{buffer: make([]byte, readSize), max: maximum}
}

// ReadBuffer returns the buffer for the next read. It is called when NextFrame has returned kind 0.
func (p *Parser) ReadBuffer() []byte {
	if p.start == p.end {
		p.start, p.end = 0, 0
		if len(p.buffer) > maxSpare {
			p.buffer = make([]byte, readSize) // one large frame must not take memory forever
		}
	}
	need := headSize
	if p.end-p.start >= 4 {
		need = 4 + int(binary.LittleEndian.Uint32(p.buffer[p.start:]))
	}
	if p.start > 0 && (p.end == len(p.buffer) || p.start+need > len(p.buffer)) {
		copy(p.buffer, p.buffer[p.start:p.end])
		p.start, p.end = 0, p.end-p.start
	}
	if p.end == len(p.buffer) {
		// The buffer grows as bytes arrive: a length alone must not allocate memory.
		larger := make([]byte, min(need, 2*len(p.buffer)))
		copy(larger, p.buffer[:p.end])
		p.buffer = larger
	}
	return p.buffer[p.end:]
}

// AdvanceRead adds the number of bytes that were read into ReadBuffer.
func (p *Parser) AdvanceRead(n int) { p.end += n }

// NextFrame returns the next complete frame; kind 0 if there is none. The payload is valid until the
// next call of ReadBuffer.
func (p *Parser) NextFrame() (kind Kind, payload []byte, err error) {
	have := p.buffer[p.start:p.end]
	if len(have) < headSize {
		if len(have) >= 4 && binary.LittleEndian.Uint32(have) == 0 {
			return 0, nil, protocolError("a frame of 0 bytes")
		}
		return 0, nil, nil
	}
	length := int(binary.LittleEndian.Uint32(have))
	kind = Kind(have[4])
	if kind == 0 {
		return 0, nil, protocolError("a %v", kind) // kind 0 means no frame
	}
	if most := frameLimit(kind, p.max); length < 1 || length > most {
		return 0, nil, protocolError("a %v of %d bytes; 1 to %d are allowed", kind, length, most)
	}
	if len(have) < 4+length {
		return 0, nil, nil
	}
	p.start += 4 + length
	return kind, have[headSize : 4+length], nil
}
