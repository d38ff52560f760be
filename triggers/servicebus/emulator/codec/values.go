package codec

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// This file has the part of AMQP 1.0's type system that frames and messages use (OASIS, part 1).
// Types that are not declared here are represented by Go's own: a list by []any, a map by
// map[any]any.

type (
	// Symbol is a string from a fixed vocabulary.
	Symbol string
	// UUID is 16 bytes, in the order in which they are sent.
	UUID [16]byte
	// Char is a Unicode character.
	Char rune
	// Described is a value with a descriptor of its type.
	Described struct {
		Code  uint64 // 0 where the descriptor is a symbol, in Name
		Name  Symbol
		Value any
	}
	// Raw is a value of a type that the emulator does not use, with its original bytes.
	Raw []byte
)

// NewUUID returns a random UUID.
func NewUUID() (id UUID) {
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// DeliveryTag returns a lock token as a delivery tag, in .NET's byte order for GUIDs.
func (u UUID) DeliveryTag() []byte {
	u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
	u[4], u[5], u[6], u[7] = u[5], u[4], u[7], u[6]
	return u[:]
}

// maxDepth limits the nesting of values; a filter has a depth of three.
const maxDepth = 16

var errCodec = errors.New("malformed AMQP")

// decoder reads values from a frame. Every read is bounded by its length.
type decoder struct {
	data []byte
}

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.data) {
		return nil, fmt.Errorf("%w: %d bytes wanted, %d there", errCodec, n, len(d.data))
	}
	out := d.data[:n]
	d.data = d.data[n:]
	return out, nil
}

func (d *decoder) number(size int) (uint64, error) {
	b, err := d.take(size)
	if err != nil {
		return 0, err
	}
	switch size {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), nil
	}
	return binary.BigEndian.Uint64(b), nil
}

// value reads one value. Lists are []any, maps map[any]any, arrays and decimals Raw. A map key that
// Go cannot use as a key is an error.
func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", errCodec, maxDepth)
	}
	whole := d.data
	if len(whole) > 0 && opaque(whole[0]) {
		if err := d.skip(depth); err != nil {
			return nil, err
		}
		return Raw(whole[:len(whole)-len(d.data)]), nil
	}
	code, err := d.number(1)
	if err != nil {
		return nil, err
	}
	if code == 0 {
		descriptor, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		value, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		switch t := descriptor.(type) {
		case uint64:
			return Described{Code: t, Value: value}, nil
		case Symbol:
			return Described{Name: t, Value: value}, nil
		}
		return nil, fmt.Errorf("%w: a descriptor of type %T", errCodec, descriptor)
	}
	return d.body(byte(code), depth)
}

// opaque reports whether values of a type are kept unchanged: arrays and decimals.
func opaque(code byte) bool {
	return code>>4 >= 0xe || code == 0x74 || code == 0x84 || code == 0x94
}

// skip skips one value of any type. Its content is checked only when it is read.
func (d *decoder) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested deeper than %d", errCodec, maxDepth)
	}
	code, err := d.number(1)
	if err != nil {
		return err
	}
	size := 0
	switch code >> 4 {
	case 0x1, 0x2, 0x3:
		return fmt.Errorf("%w: the type 0x%02x", errCodec, code)
	case 0x0:
		if err := d.skip(depth + 1); err != nil {
			return err
		}
		return d.skip(depth + 1)
	case 0x4:
	case 0x5, 0x6, 0x7, 0x8, 0x9:
		size = 1 << (code>>4 - 5)
	default:
		n, err := d.number(width(byte(code)))
		if err != nil {
			return err
		}
		if n > math.MaxInt32 {
			return fmt.Errorf("%w: %d bytes", errCodec, n)
		}
		size = int(n)
	}
	_, err = d.take(size)
	return err
}

// body reads the value after a type's code.
func (d *decoder) body(code byte, depth int) (any, error) {
	switch code {
	case 0x40:
		return nil, nil
	case 0x41:
		return true, nil
	case 0x42:
		return false, nil
	case 0x43:
		return uint32(0), nil
	case 0x44:
		return uint64(0), nil
	case 0x45:
		return []any(nil), nil
	}
	// The other types are decoded by the width in the upper half of the code.
	switch code >> 4 {
	case 0x5, 0x6, 0x7, 0x8:
		size := 1 << (code>>4 - 5)
		n, err := d.number(size)
		if err != nil {
			return nil, err
		}
		return fixed(code, n)
	case 0x9:
		if code == 0x98 {
			b, err := d.take(16)
			if err != nil {
				return nil, err
			}
			return UUID(b), nil
		}
	case 0xa, 0xb:
		n, err := d.number(width(code))
		if err != nil {
			return nil, err
		}
		if n > math.MaxInt32 {
			return nil, fmt.Errorf("%w: %d bytes", errCodec, n)
		}
		b, err := d.take(int(n))
		if err != nil {
			return nil, err
		}
		switch code & 0xf {
		case 0x0:
			return append([]byte{}, b...), nil
		case 0x1:
			return string(b), nil
		case 0x3:
			return Symbol(b), nil
		}
	case 0xc, 0xd:
		return d.compound(code, depth)
	}
	return nil, fmt.Errorf("%w: the type 0x%02x", errCodec, code)
}

// width is the width of a size field: 1 for 0xa, 0xc, 0xe, and 4 for 0xb, 0xd, 0xf.
func width(code byte) int {
	if code>>4&1 == 0 {
		return 1
	}
	return 4
}

func fixed(code byte, n uint64) (any, error) {
	switch code {
	case 0x50:
		return uint8(n), nil
	case 0x51:
		return int8(n), nil
	case 0x52, 0x70:
		return uint32(n), nil
	case 0x53, 0x80:
		return n, nil
	case 0x54:
		return int32(int8(n)), nil
	case 0x55:
		return int64(int8(n)), nil
	case 0x56:
		return n != 0, nil
	case 0x60:
		return uint16(n), nil
	case 0x61:
		return int16(n), nil
	case 0x71:
		return int32(n), nil
	case 0x72:
		return math.Float32frombits(uint32(n)), nil
	case 0x73:
		return Char(n), nil
	case 0x81:
		return int64(n), nil
	case 0x82:
		return math.Float64frombits(n), nil
	case 0x83:
		return time.UnixMilli(int64(n)).UTC(), nil
	}
	return nil, fmt.Errorf("%w: the type 0x%02x", errCodec, code)
}

func (d *decoder) compound(code byte, depth int) (any, error) {
	size, err := d.number(width(code))
	if err != nil {
		return nil, err
	}
	if size > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d bytes", errCodec, size)
	}
	data, err := d.take(int(size))
	if err != nil {
		return nil, err
	}
	inner := decoder{data}
	count, err := inner.number(width(code))
	if err != nil {
		return nil, err
	}
	if count > uint64(len(inner.data))+1 {
		return nil, fmt.Errorf("%w: %d values in %d bytes", errCodec, count, len(inner.data))
	}
	values := make([]any, 0, count)
	for range count {
		v, err := inner.value(depth + 1)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	if code&0xf == 0 {
		return values, nil
	}
	if len(values)%2 == 1 {
		return nil, fmt.Errorf("%w: a map of %d values", errCodec, len(values))
	}
	out := make(map[any]any, len(values)/2)
	for i := 0; i < len(values); i += 2 {
		switch values[i].(type) {
		case Symbol, string, uint64, int64, uint32, int32, UUID, bool:
			out[values[i]] = values[i+1]
		default:
			return nil, fmt.Errorf("%w: a map's key of type %T", errCodec, values[i])
		}
	}
	return out, nil
}

// AppendValue encodes a value of a type that the emulator sends. It panics for other types, since
// that is a bug in the emulator.
func AppendValue(out []byte, v any) []byte {
	switch t := v.(type) {
	case nil:
		return append(out, 0x40)
	case bool:
		if t {
			return append(out, 0x41)
		}
		return append(out, 0x42)
	case uint8:
		return append(out, 0x50, t)
	case int8:
		return append(out, 0x51, byte(t))
	case uint16:
		return binary.BigEndian.AppendUint16(append(out, 0x60), t)
	case int16:
		return binary.BigEndian.AppendUint16(append(out, 0x61), uint16(t))
	case uint32:
		return binary.BigEndian.AppendUint32(append(out, 0x70), t)
	case int32:
		return binary.BigEndian.AppendUint32(append(out, 0x71), uint32(t))
	case float32:
		return binary.BigEndian.AppendUint32(append(out, 0x72), math.Float32bits(t))
	case Char:
		return binary.BigEndian.AppendUint32(append(out, 0x73), uint32(t))
	case float64:
		return binary.BigEndian.AppendUint64(append(out, 0x82), math.Float64bits(t))
	case uint64:
		if t < 256 { // go-amqp knows performatives by this form only
			return append(out, 0x53, byte(t))
		}
		return binary.BigEndian.AppendUint64(append(out, 0x80), t)
	case int64:
		return binary.BigEndian.AppendUint64(append(out, 0x81), uint64(t))
	case time.Time:
		return binary.BigEndian.AppendUint64(append(out, 0x83), uint64(t.UnixMilli()))
	case UUID:
		return append(append(out, 0x98), t[:]...)
	case []byte:
		return append(binary.BigEndian.AppendUint32(append(out, 0xb0), uint32(len(t))), t...)
	case string:
		return append(binary.BigEndian.AppendUint32(append(out, 0xb1), uint32(len(t))), t...)
	case Symbol:
		return append(binary.BigEndian.AppendUint32(append(out, 0xb3), uint32(len(t))), t...)
	case Raw:
		return append(out, t...)
	case []Symbol:
		body := binary.BigEndian.AppendUint32(nil, uint32(len(t)))
		body = append(body, 0xb3)
		for _, s := range t {
			body = append(binary.BigEndian.AppendUint32(body, uint32(len(s))), s...)
		}
		return append(binary.BigEndian.AppendUint32(append(out, 0xf0), uint32(len(body))), body...)
	case []any:
		return appendCompound(out, 0xd0, len(t), func(body []byte) []byte {
			for _, v := range t {
				body = AppendValue(body, v)
			}
			return body
		})
	case map[any]any:
		return appendCompound(out, 0xd1, 2*len(t), func(body []byte) []byte {
			for k, v := range t {
				body = AppendValue(AppendValue(body, k), v)
			}
			return body
		})
	case Described:
		out = append(out, 0x00)
		if t.Name != "" {
			out = AppendValue(out, t.Name)
		} else {
			out = AppendValue(out, t.Code)
		}
		return AppendValue(out, t.Value)
	}
	panic(fmt.Sprintf("a value of type %T in a frame", v))
}

func appendCompound(out []byte, code byte, count int, write func([]byte) []byte) []byte {
	out = append(out, code, 0, 0, 0, 0, 0, 0, 0, 0)
	start := len(out)
	out = write(out)
	binary.BigEndian.PutUint32(out[start-8:], uint32(len(out)-start+4))
	binary.BigEndian.PutUint32(out[start-4:], uint32(count))
	return out
}
