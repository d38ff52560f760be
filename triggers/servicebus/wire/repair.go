package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// This file changes a message in place so that the SDK can read it:
//
//   - azservicebus panics if certain properties and annotations have another type than the
//     service sets. The first letter of such a name is replaced by NUL.
//   - go-amqp closes the link on a decimal or a char. Each is replaced by a mark of the same size.
//   - A message that is malformed, or nested deeply enough to overflow the stack, gets a body
//     that is an AMQP sequence of a mark and bytes.
//
// Unfit then returns why no function can receive the message, and it is dead-lettered. The
// service keeps the original.

// The sections of a message (OASIS AMQP 1.0, part 3.2).
const (
	sectionAnnotations = 0x72
	sectionProperties  = 0x73
	sectionApplication = 0x74
	sectionData        = 0x75
	sectionSequence    = 0x76
	sectionValue       = 0x77
)

// maxDepth bounds the nesting of values.
const maxDepth = 64

// The marks replace values that go-amqp cannot read.
var (
	mark32 = math.Float32frombits(0x7fd2_0e55)
	mark64 = math.Float64frombits(0x7ffd_204e_55ed_c0de)
	mark16 = amqp.UUID{0xd2, 0x0e, 0x55, 0xed, 0x9a, 0x41, 0x0b, 0x76, 0x00, 0xc3, 0x5e, 0x12, 0x88, 0xf0, 0x3d, 0xa7}
)

// Unfit returns why no function can receive a message; empty if one can.
func Unfit(m *azservicebus.ReceivedMessage) string {
	for name, value := range m.ApplicationProperties {
		if why := UnfitValue("property", name, value); why != "" {
			return why
		}
	}
	raw := m.RawAMQPMessage
	if raw == nil {
		return ""
	}
	for key, value := range raw.MessageAnnotations {
		name, _ := key.(string)
		if why := UnfitValue("annotation", name, value); why != "" {
			return why
		}
	}
	if marked(raw.Body.Value) {
		return "the body has a value of the type decimal or char, which drover cannot read; have its sender send another type"
	}
	if s := raw.Body.Sequence; len(s) == 1 && len(s[0]) == 2 && marked(s[0][0]) {
		return "the message is malformed, or nested too deeply"
	}
	return ""
}

// UnfitValue returns why a value cannot be read; empty if it can. kind is property or annotation.
func UnfitValue(kind, name string, value any) string {
	if rest, renamed := strings.CutPrefix(name, "\x00"); renamed {
		for known := range typed {
			if known[1:] == rest {
				return fmt.Sprintf("the %s %s is a %T, which is not the type that Azure Service Bus gives it; have its sender use another name", kind, known, value)
			}
		}
	}
	if marked(value) {
		return fmt.Sprintf("the %s %s is a decimal or a char, which drover cannot read; have its sender send another type", kind, name)
	}
	return ""
}

// marked reports whether a value is or contains a mark.
func marked(value any) bool {
	switch v := value.(type) {
	case float32:
		return math.Float32bits(v) == math.Float32bits(mark32)
	case float64:
		return math.Float64bits(v) == math.Float64bits(mark64)
	case amqp.UUID:
		return v == mark16
	case []float32:
		return len(v) > 0 && marked(v[0])
	case []float64:
		return len(v) > 0 && marked(v[0])
	case []amqp.UUID:
		return len(v) > 0 && marked(v[0])
	case []any:
		for _, each := range v {
			if marked(each) {
				return true
			}
		}
	case map[any]any:
		for key, each := range v {
			if marked(key) || marked(each) {
				return true
			}
		}
	case map[string]any:
		for _, each := range v {
			if marked(each) {
				return true
			}
		}
	}
	return false
}

// typed are the names whose values azservicebus asserts to have a type, and the AMQP types that
// pass the assertion.
var typed = map[string]struct {
	section byte
	codes   string
}{
	"DeadLetterReason":              {sectionApplication, textCodes},
	"DeadLetterErrorDescription":    {sectionApplication, textCodes},
	"x-opt-partition-key":           {sectionAnnotations, textCodes + nullCode},
	"x-opt-deadletter-source":       {sectionAnnotations, textCodes + nullCode},
	"x-opt-locked-until":            {sectionAnnotations, timestampCode},
	"x-opt-enqueued-time":           {sectionAnnotations, timestampCode},
	"x-opt-scheduled-enqueue-time":  {sectionAnnotations, timestampCode},
	"x-opt-sequence-number":         {sectionAnnotations, longCodes},
	"x-opt-enqueue-sequence-number": {sectionAnnotations, longCodes},
}

const (
	textCodes     = "\xa1\xb1\xa3\xb3"
	nullCode      = "\x40"
	timestampCode = "\x83"
	longCodes     = "\x81\x55"
)

// repair changes a message if necessary, and reports whether it did. If whole is false, the data of
// the message may be incomplete.
func repair(b []byte, whole bool) bool {
	r := repairer{b: b}
	for i := 0; i < len(b); {
		code, at, ok := descriptor(b, i)
		if !ok || code > 0xff {
			return r.changed
		}
		next := r.value(at, maxDepth)
		if next < 0 {
			if whole && code >= sectionProperties {
				return spoil(b[i:]) || r.changed
			}
			return r.changed
		}
		switch code {
		case sectionAnnotations, sectionApplication:
			r.names(at, byte(code))
		case sectionValue:
			r.peeked(at)
		}
		i = next
	}
	return r.changed
}

type repairer struct {
	b       []byte
	changed bool
}

// value replaces the parts of the value at i that go-amqp cannot read, and returns its end; -1 if
// it is malformed or nested too deeply.
func (r *repairer) value(i, depth int) int {
	b := r.b
	end := skip(b, i, depth)
	if end < 0 {
		return -1
	}
	switch b[i] {
	case 0x73, 0x74, 0x84, 0x94: // char, decimal32, decimal64, decimal128
		b[i] = replace(b[i], b[i+1:end])
		r.changed = true
	case 0x00:
		if at := r.value(i+1, depth-1); at < 0 || r.value(at, depth-1) < 0 {
			return -1
		}
	case 0xc0, 0xc1, 0xd0, 0xd1:
		j, count := elements(b, i)
		for range count {
			if j = r.value(j, depth-1); j < 0 || j > end {
				return -1
			}
		}
	case 0xe0, 0xf0:
		// The elements of an array share the code of their type.
		j := i + 3
		if b[i] == 0xf0 {
			j = i + 9
		}
		if j >= end {
			break
		}
		switch code := b[j]; code {
		case 0x73, 0x74, 0x84, 0x94:
			for at := j + 1; at < end; {
				to := min(at+width(code), end)
				b[j] = replace(code, b[at:to])
				at = to
			}
			r.changed = true
		}
	}
	return end
}

// width returns the size of a value of a fixed-size type.
func width(code byte) int { return [...]int{0, 1, 2, 4, 8, 16}[code>>4-4] }

// replace overwrites a value with a mark, and returns the mark's type.
func replace(code byte, over []byte) byte {
	var mark [16]byte
	to := byte(0x98)
	switch width(code) {
	case 4:
		to = 0x72
		binary.BigEndian.PutUint32(mark[:], math.Float32bits(mark32))
	case 8:
		to = 0x82
		binary.BigEndian.PutUint64(mark[:], math.Float64bits(mark64))
	default:
		mark = mark16
	}
	copy(over, mark[:])
	return to
}

// names renames the keys with values of a wrong type in the map at i, which is well-formed.
func (r *repairer) names(i int, section byte) {
	r.pairs(i, func(key []byte, value int) {
		if len(key) < len("DeadLetterReason") || key[0] != 'D' && key[0] != 'x' {
			return
		}
		if want, known := typed[string(key)]; known && want.section == section && strings.IndexByte(want.codes, r.b[value]) < 0 {
			key[0], r.changed = 0, true
		}
	})
}

// peeked repairs the messages in the response of a peek: {"messages": [{"message": bytes}]}.
func (r *repairer) peeked(i int) {
	r.pairs(i, func(key []byte, value int) {
		if string(key) != "messages" || r.b[value] != 0xc0 && r.b[value] != 0xd0 {
			return
		}
		j, count := elements(r.b, value)
		for range count {
			r.pairs(j, func(key []byte, value int) {
				if string(key) == "message" {
					if message, ok := content(r.b, value, 0xa0); ok && repair(message, true) {
						r.changed = true
					}
				}
			})
			j = skip(r.b, j, maxDepth)
		}
	})
}

// pairs calls do for each pair with a text key of the map at i, which is well-formed.
func (r *repairer) pairs(i int, do func(key []byte, value int)) {
	if r.b[i] != 0xc1 && r.b[i] != 0xd1 {
		return
	}
	j, count := elements(r.b, i)
	for range count / 2 {
		value := skip(r.b, j, maxDepth)
		for kind := byte(0xa1); kind <= 0xa3; kind += 2 {
			if key, ok := content(r.b, j, kind); ok {
				do(key, value)
			}
		}
		j = skip(r.b, value, maxDepth)
	}
}

// spoil replaces the rest of a message with a sequence of a mark and bytes.
func spoil(b []byte) bool {
	const head = 3 + 9 + 17 + 5
	if len(b) < head {
		return false
	}
	n := uint32(len(b) - head)
	copy(b, []byte{0x00, 0x53, sectionSequence, 0xd0})
	binary.BigEndian.PutUint32(b[4:], 4+17+5+n)
	binary.BigEndian.PutUint32(b[8:], 2)
	b[12] = 0x98
	copy(b[13:], mark16[:])
	b[29] = 0xb0
	binary.BigEndian.PutUint32(b[30:], n)
	return true
}

// hasData reports whether an incomplete message has arrived up to its data. Then all parts that may
// need repair have arrived.
func hasData(b []byte) bool {
	for i := 0; i >= 0 && i < len(b); {
		code, at, ok := descriptor(b, i)
		if !ok || code == sectionData {
			return ok
		}
		i = skip(b, at, maxDepth)
	}
	return false
}

// descriptor returns the descriptor of the described value at i, and the position of its value.
func descriptor(b []byte, i int) (code uint64, at int, ok bool) {
	switch {
	case len(b)-i >= 4 && b[i] == 0 && b[i+1] == 0x53:
		return uint64(b[i+2]), i + 3, true
	case len(b)-i >= 11 && b[i] == 0 && b[i+1] == 0x80:
		return binary.BigEndian.Uint64(b[i+2:]), i + 10, true
	}
	return 0, 0, false
}

// elements returns the position of the first element of the list or map at i, and the number of
// elements; -1 if the value is neither.
func elements(b []byte, i int) (first, count int) {
	if i >= len(b) {
		return -1, 0
	}
	switch c := b[i]; {
	case c == 0x45:
		return i + 1, 0
	case (c == 0xc0 || c == 0xc1) && i+3 <= len(b):
		return i + 3, int(b[i+2])
	case (c == 0xd0 || c == 0xd1) && i+9 <= len(b):
		return i + 9, int(binary.BigEndian.Uint32(b[i+5:]))
	}
	return -1, 0
}

// content returns the bytes of the value at i if it has the given kind: 0xa0 bytes, 0xa1 a string,
// 0xa3 a symbol.
func content(b []byte, i int, kind byte) ([]byte, bool) {
	end := skip(b, i, maxDepth)
	switch {
	case end < 0:
	case b[i] == kind:
		return b[i+2 : end], true
	case b[i] == kind+0x10:
		return b[i+5 : end], true
	}
	return nil, false
}

// skip returns the end of the value at i; -1 if it is not within b, or is nested too deeply.
func skip(b []byte, i, depth int) int {
	if i < 0 || i >= len(b) || depth <= 0 {
		return -1
	}
	size := 0
	switch c := b[i]; c >> 4 {
	case 0x0:
		if c != 0 {
			return -1
		}
		return skip(b, skip(b, i+1, depth-1), depth-1)
	case 0x4, 0x5, 0x6, 0x7, 0x8, 0x9:
		size = width(c)
	case 0xa, 0xc, 0xe:
		if i+1 >= len(b) || c >= 0xc0 && b[i+1] == 0 {
			return -1
		}
		size = 1 + int(b[i+1])
	case 0xb, 0xd, 0xf:
		if i+4 >= len(b) {
			return -1
		}
		size = int(binary.BigEndian.Uint32(b[i+1:]))
		if c >= 0xd0 && size < 4 {
			return -1
		}
		size += 4
	default:
		return -1
	}
	if size > len(b)-i-1 {
		return -1
	}
	return i + 1 + size
}
