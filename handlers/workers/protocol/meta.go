package protocol

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/drover-run/drover/triggers"
)

// This file encodes the data beside the body: meta in an INVOKE, and properties in a RESULT.

// metaSize returns the number of bytes that appendMeta appends.
func metaSize(m *triggers.Message, properties triggers.Properties) int {
	n := 3*4 + len(m.ID) + len(m.Subject) + len(m.OrderingKey)
	for name, value := range m.Attributes {
		switch {
		case name == "" && value == "":
		case m.Repeated != nil && len(m.Repeated[name]) > 0:
			for _, each := range m.Repeated[name] {
				n += 2*4 + len(name) + len(each)
			}
		default:
			n += 2*4 + len(name) + len(value)
		}
	}
	if len(properties) > 0 {
		n += 2*4 + pairsSize(properties)
	}
	return n
}

// appendMeta appends the message's ID, subject and ordering key, and then pairs of strings:
// its attributes, with a pair for each value; a pair of empty strings; and its properties. An
// attribute with an empty name and value would look like the separator, and is omitted.
func appendMeta(out []byte, m *triggers.Message, properties triggers.Properties) []byte {
	out = appendText(out, m.ID)
	out = appendText(out, m.Subject)
	out = appendText(out, m.OrderingKey)
	if len(m.Attributes) > 0 {
		for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
			switch {
			case name == "" && m.Attributes[name] == "":
			case m.Repeated != nil && len(m.Repeated[name]) > 0:
				for _, each := range m.Repeated[name] {
					out = appendText(appendText(out, name), each)
				}
			default:
				out = appendText(appendText(out, name), m.Attributes[name])
			}
		}
	}
	if len(properties) > 0 {
		out = appendPairs(appendText(appendText(out, ""), ""), properties)
	}
	return out
}

func pairsSize(all map[string]string) (n int) {
	for name, value := range all {
		n += 2*4 + len(name) + len(value)
	}
	return n
}

func appendPairs(out []byte, all map[string]string) []byte {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = appendText(appendText(out, name), all[name])
	}
	return out
}

// CutProperties splits the properties off the payload of a Described RESULT, after its state: a u32
// length, and that many bytes of alternating names and values.
func CutProperties(payload []byte) (all triggers.Properties, output []byte, err error) {
	if len(payload) < 4 {
		return nil, nil, protocolError("a RESULT with properties, of %d bytes", len(payload))
	}
	n, rest := binary.LittleEndian.Uint32(payload), payload[4:]
	if uint64(n) > uint64(len(rest)) {
		return nil, nil, protocolError("properties of %d bytes in a RESULT of %d", n, len(payload))
	}
	if all, err = readPairs(rest[:n]); err != nil {
		return nil, nil, err
	}
	if output = rest[n:]; output == nil {
		output = []byte{}
	}
	return all, output, nil
}

func readPairs(pairs []byte) (all triggers.Properties, err error) {
	all = make(triggers.Properties)
	for len(pairs) > 0 {
		var name, value string
		if name, pairs, err = cutText(pairs); err == nil {
			value, pairs, err = cutText(pairs)
		}
		if err != nil {
			return nil, err
		}
		all[name] = value
	}
	return all, nil
}

func cutText(from []byte) (text string, rest []byte, err error) {
	if len(from) < 4 {
		return "", nil, protocolError("a property that is cut off")
	}
	n, rest := binary.LittleEndian.Uint32(from), from[4:]
	if uint64(n) > uint64(len(rest)) {
		return "", nil, protocolError("a property of %d bytes, where %d are left", n, len(rest))
	}
	return string(rest[:n]), rest[n:], nil
}
