package protocol

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/drover-run/drover/triggers"
)

// InitialCredit is how many bytes of a response's body a worker may send before the first CREDIT.
const InitialCredit = 256 << 10

// The flags of a PART.
const (
	withHead = 1 // the head of the response precedes the bytes
	lastPart = 2 // the body is complete
)

// ResponsePart is a parsed PART.
type ResponsePart struct {
	ID   uint32
	Head *ResponseHead // of the response; nil except in the first part
	Last bool          // the body is complete
	Body []byte        // valid as long as the payload of the frame
}

// ResponseHead is the status and the headers of a response.
type ResponseHead struct {
	Status  int        `json:"status"`
	Headers [][]string `json:"headers"` // pairs of name and value
}

// AppendCredit appends a CREDIT: the worker may send n more bytes of the body of a call's response.
func AppendCredit(out []byte, id, n uint32) []byte {
	out = binary.LittleEndian.AppendUint32(appendHead(out, Credit, 8), id)
	return binary.LittleEndian.AppendUint32(out, n)
}

// ReadPart parses the payload of a PART.
func ReadPart(payload []byte) (ResponsePart, error) {
	const fixed = 4 + 1
	if len(payload) < fixed {
		return ResponsePart{}, protocolError("a PART of %d bytes", len(payload))
	}
	flags := payload[4]
	p := ResponsePart{ID: binary.LittleEndian.Uint32(payload), Last: flags&lastPart != 0, Body: payload[fixed:]}
	if flags&^(withHead|lastPart) != 0 {
		return p, protocolError("a PART with the flags %d", flags)
	}
	if flags&withHead == 0 {
		return p, nil
	}
	if len(p.Body) < 4 || uint64(binary.LittleEndian.Uint32(p.Body)) > uint64(len(p.Body)-4) {
		return p, protocolError("a PART of %d bytes whose head is cut off", len(payload))
	}
	n := 4 + int(binary.LittleEndian.Uint32(p.Body))
	p.Head = new(ResponseHead)
	if err := json.Unmarshal(p.Body[4:n], p.Head); err != nil {
		return p, protocolError("a PART whose head is no JSON: %w", err)
	}
	p.Body = p.Body[n:]
	if p.Head.Status < 200 || p.Head.Status > 599 {
		return p, protocolError("a PART with the status %d, where 200 to 599 are allowed", p.Head.Status)
	}
	for _, pair := range p.Head.Headers {
		if len(pair) != 2 {
			return p, protocolError("a PART with a header of %d texts, where there are a name and a value", len(pair))
		}
	}
	return p, nil
}

// Properties returns the head as the properties of a result.
func (h *ResponseHead) Properties() triggers.Properties {
	out := triggers.Properties{triggers.HTTPStatus: strconv.Itoa(h.Status)}
	others := make([][]string, 0, len(h.Headers))
	for _, pair := range h.Headers {
		if _, given := out[triggers.ContentType]; !given && strings.EqualFold(pair[0], "Content-Type") {
			out[triggers.ContentType] = pair[1]
			continue
		}
		others = append(others, pair)
	}
	if len(others) > 0 {
		text, _ := json.Marshal(others) // strings cannot fail
		out[triggers.HTTPHeaders] = string(text)
	}
	return out
}
