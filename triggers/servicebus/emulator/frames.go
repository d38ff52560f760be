package emulator

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The performatives, by their descriptors (OASIS AMQP 1.0, parts 2 and 5).
const (
	opOpen        = 0x10
	opBegin       = 0x11
	opAttach      = 0x12
	opFlow        = 0x13
	opTransfer    = 0x14
	opDisposition = 0x15
	opDetach      = 0x16
	opEnd         = 0x17
	opClose       = 0x18

	typeError    = 0x1d
	typeAccepted = 0x24
	typeRejected = 0x25
	typeReleased = 0x26
	typeModified = 0x27
	typeSource   = 0x28
	typeTarget   = 0x29

	opMechanisms = 0x40
	opInit       = 0x41
	opOutcome    = 0x44
)

const (
	frameHead = 8
	// maxFrame is the largest frame, either way, in bytes.
	maxFrame = 64 << 10
	amqpType = 0
	saslType = 1
)

// frame is a performative with its fields, and what follows it.
type frame struct {
	kind    byte
	channel uint16
	op      uint64 // 0: an empty frame, a sign of life
	fields  []any
	payload []byte
}

// The fields of performatives are looked up by place; one that is absent, null
// or of another type is the zero value.
func field[T any](fields []any, i int) T {
	var zero T
	if i >= len(fields) {
		return zero
	}
	if v, ok := fields[i].(T); ok {
		return v
	}
	return zero
}

func at(fields []any, i int) any {
	if i >= len(fields) {
		return nil
	}
	return fields[i]
}

func has(fields []any, i int) bool { return i < len(fields) && fields[i] != nil }

// composite returns the fields of a described list, such as a source.
func composite(v any) (code uint64, fields []any) {
	d, _ := v.(described)
	fields, _ = d.value.([]any)
	return d.code, fields
}

func readFrame(r io.Reader) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	offset := 4 * int(head[4])
	if size < frameHead || size > maxFrame || offset < frameHead || offset > int(size) {
		return frame{}, fmt.Errorf("%w: a frame of %d bytes, whose body begins at %d", errCodec, size, offset)
	}
	body := make([]byte, size-frameHead)
	if _, err := io.ReadFull(r, body); err != nil {
		return frame{}, err
	}
	f := frame{kind: head[5], channel: binary.BigEndian.Uint16(head[6:])}
	d := decoder{body[offset-frameHead:]}
	if len(d.data) == 0 {
		return f, nil
	}
	v, err := d.value(0)
	if err != nil {
		return frame{}, err
	}
	f.op, f.fields = composite(v)
	if f.op == 0 {
		return frame{}, fmt.Errorf("%w: a frame without a performative", errCodec)
	}
	f.payload = d.data
	return f, nil
}

func appendFrame(out []byte, kind byte, channel uint16, op uint64, fields []any, payload []byte) []byte {
	start := len(out)
	out = append(out, 0, 0, 0, 0, 2, kind, 0, 0)
	binary.BigEndian.PutUint16(out[start+6:], channel)
	if op != 0 {
		out = appendValue(out, described{code: op, value: fields})
	}
	out = append(out, payload...)
	binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start))
	return out
}

// condition is an AMQP error.
type condition struct {
	name, text string
}

func (c *condition) Error() string { return c.name + ": " + c.text }

func failure(name, format string, args ...any) *condition {
	return &condition{name, fmt.Sprintf(format, args...)}
}

// value is the error as a frame has it; nil for none.
func (c *condition) value() any {
	if c == nil {
		return nil
	}
	// The Python SDK needs the third field, info, to be written.
	return described{code: typeError, value: []any{symbol(c.name), c.text, nil}}
}

// The conditions that Service Bus uses.
const (
	condNotFound      = "amqp:not-found"
	condUnauthorized  = "amqp:unauthorized-access"
	condNotAllowed    = "amqp:not-allowed"
	condNotImpl       = "amqp:not-implemented"
	condDecode        = "amqp:decode-error"
	condSize          = "amqp:link:message-size-exceeded"
	condDetachForced  = "amqp:link:detach-forced"
	condConnForced    = "amqp:connection:forced"
	condTimeout       = "com.microsoft:timeout"
	condBusy          = "com.microsoft:server-busy"
	condDisabled      = "com.microsoft:entity-disabled"
	condArgument      = "com.microsoft:argument-error"
	condDeadLetter    = "com.microsoft:dead-letter"
	condMessageLost   = "com.microsoft:message-lock-lost"
	condSessionLost   = "com.microsoft:session-lock-lost"
	condSessionLocked = "com.microsoft:session-cannot-be-locked"
	condNoMessage     = "com.microsoft:message-not-found"
)
