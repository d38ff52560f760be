// Package codec has the part of AMQP 1.0 that the emulator uses: values (values.go), frames of
// values (frames.go), errors (conditions.go), and messages with their sections (message.go). It is
// independent of connections and queues. Only functions that read are safe for concurrent use.
package codec

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The performatives, by their descriptors (OASIS AMQP 1.0, parts 2 and 5).
const (
	OpOpen        = 0x10
	OpBegin       = 0x11
	OpAttach      = 0x12
	OpFlow        = 0x13
	OpTransfer    = 0x14
	OpDisposition = 0x15
	OpDetach      = 0x16
	OpEnd         = 0x17
	OpClose       = 0x18

	TypeError    = 0x1d
	TypeAccepted = 0x24
	TypeRejected = 0x25
	TypeReleased = 0x26
	TypeModified = 0x27
	TypeSource   = 0x28
	TypeTarget   = 0x29

	OpMechanisms = 0x40
	OpInit       = 0x41
	OpOutcome    = 0x44
)

const (
	frameHead = 8
	// MaxFrame is the largest frame, either way, in bytes.
	MaxFrame = 64 << 10
	// AMQPType is the type of most frames.
	AMQPType = 0
	// SASLType is the type of frames before a connection is open.
	SASLType = 1
)

// Frame is a performative with its fields, and the payload after it.
type Frame struct {
	Type    byte
	Channel uint16
	Op      uint64 // 0: an empty frame, a sign of life
	Fields  []any
	Payload []byte
}

// Field returns the field at an index. If it is absent, null or of another type, Field returns the
// zero value.
func Field[T any](fields []any, i int) T {
	var zero T
	if i >= len(fields) {
		return zero
	}
	if v, ok := fields[i].(T); ok {
		return v
	}
	return zero
}

// At returns the field at an index; nil if it is absent.
func At(fields []any, i int) any {
	if i >= len(fields) {
		return nil
	}
	return fields[i]
}

// Has reports whether a field is present and not null.
func Has(fields []any, i int) bool { return i < len(fields) && fields[i] != nil }

// Composite returns the fields of a described list, such as a source.
func Composite(v any) (code uint64, fields []any) {
	d, _ := v.(Described)
	fields, _ = d.Value.([]any)
	return d.Code, fields
}

// ReadFrame reads one frame.
func ReadFrame(r io.Reader) (Frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	offset := 4 * int(head[4])
	if size < frameHead || size > MaxFrame || offset < frameHead || offset > int(size) {
		return Frame{}, fmt.Errorf("%w: a frame of %d bytes, whose body begins at %d", errCodec, size, offset)
	}
	body := make([]byte, size-frameHead)
	if _, err := io.ReadFull(r, body); err != nil {
		return Frame{}, err
	}
	f := Frame{Type: head[5], Channel: binary.BigEndian.Uint16(head[6:])}
	d := decoder{body[offset-frameHead:]}
	if len(d.data) == 0 {
		return f, nil
	}
	v, err := d.value(0)
	if err != nil {
		return Frame{}, err
	}
	f.Op, f.Fields = Composite(v)
	if f.Op == 0 {
		return Frame{}, fmt.Errorf("%w: a frame without a performative", errCodec)
	}
	f.Payload = d.data
	return f, nil
}

// AppendFrame writes a frame of a type. An op of 0 is an empty frame.
func AppendFrame(out []byte, frameType byte, channel uint16, op uint64, fields []any, payload []byte) []byte {
	start := len(out)
	out = append(out, 0, 0, 0, 0, 2, frameType, 0, 0)
	binary.BigEndian.PutUint16(out[start+6:], channel)
	if op != 0 {
		out = AppendValue(out, Described{Code: op, Value: fields})
	}
	out = append(out, payload...)
	binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start))
	return out
}
