package protocol

import (
	"encoding/binary"

	"github.com/drover-run/drover/triggers"
)

// maxSent bounds the messages for named outputs in one RESULT.
const maxSent = 100_000

// Sent is a message for a named output, in a RESULT.
type Sent struct {
	Output     uint16              // its index in the function's outputs in LOAD
	Properties triggers.Properties // nil if there are none
	Body       []byte              // valid as long as the payload
}

// CutSent splits the messages for named outputs off the payload of a RESULT that is Sent, after its
// state: a u32 length, and that many bytes of messages. Each is the u16 index of its output, a u32
// length and that many bytes of properties, as in CutProperties, and a u32 length and the body. rest
// is nil if nothing follows: the function has no plain result.
func CutSent(payload []byte) (all []Sent, rest []byte, err error) {
	section, rest, err := cutBytes(payload, "messages for outputs")
	if err != nil {
		return nil, nil, err
	}
	for len(section) > 0 {
		if len(section) < 2 {
			return nil, nil, protocolError("a message for an output that is cut off")
		}
		s := Sent{Output: binary.LittleEndian.Uint16(section)}
		var pairs []byte
		if pairs, section, err = cutBytes(section[2:], "properties of a message for an output"); err != nil {
			return nil, nil, err
		}
		if len(pairs) > 0 {
			if s.Properties, err = readPairs(pairs); err != nil {
				return nil, nil, err
			}
		}
		if s.Body, section, err = cutBytes(section, "a message for an output"); err != nil {
			return nil, nil, err
		}
		if all = append(all, s); len(all) > maxSent {
			return nil, nil, protocolError("more than %d messages for outputs", maxSent)
		}
	}
	if len(rest) == 0 {
		rest = nil
	}
	return all, rest, nil
}

// AppendSent appends messages for named outputs to the payload of a RESULT. Workers in other
// languages do the same; tests play a worker with it.
func AppendSent(out []byte, all []Sent) []byte {
	start := len(out)
	out = append(out, 0, 0, 0, 0)
	for _, s := range all {
		out = binary.LittleEndian.AppendUint16(out, s.Output)
		out = binary.LittleEndian.AppendUint32(out, uint32(pairsSize(s.Properties)))
		out = appendPairs(out, s.Properties)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(s.Body)))
		out = append(out, s.Body...)
	}
	binary.LittleEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	return out
}

// cutBytes splits off a u32 length and that many bytes.
func cutBytes(from []byte, what string) (cut, rest []byte, err error) {
	if len(from) < 4 {
		return nil, nil, protocolError("%s without a length", what)
	}
	n, rest := binary.LittleEndian.Uint32(from), from[4:]
	if uint64(n) > uint64(len(rest)) {
		return nil, nil, protocolError("%s of %d bytes, where %d are left", what, n, len(rest))
	}
	return rest[:n:n], rest[n:], nil
}
