package protocol

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/drover-run/drover/triggers"
)

// originTime is the format of times in an origin: always UTC, with six digits after the point.
const originTime = "2006-01-02T15:04:05.000000+00:00"

// EncodeOrigin returns the source's own fields of a message as JSON, for an INVOKE: an object of
// what its triggers.Origin returns from Native. Times are texts in UTC, to the microsecond; bytes
// are base64. It returns nil if the source has no such fields. It may wait for the source, because
// Native may.
func EncodeOrigin(m *triggers.Message) []byte {
	if m.Origin == nil {
		return nil
	}
	fields := m.Origin.Native()
	if fields == nil {
		return nil
	}
	return appendObject(make([]byte, 0, 512), fields)
}

// appendObject appends an object, in no particular order. encoding/json takes several times as long,
// and each message of a function app needs one.
func appendObject(out []byte, fields map[string]any) []byte {
	out = append(out, '{')
	first := true
	for name, value := range fields {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(appendString(out, name), ':')
		out = appendValue(out, value)
	}
	return append(out, '}')
}

func appendValue(out []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendString(out, v)
	case int64:
		return strconv.AppendInt(out, v, 10)
	case bool:
		return strconv.AppendBool(out, v)
	case time.Time:
		out = append(out, '"')
		return append(v.UTC().AppendFormat(out, originTime), '"')
	case map[string]any:
		return appendObject(out, v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return appendString(out, strconv.FormatFloat(v, 'g', -1, 64))
		}
	}
	return appendAny(out, value)
}

// appendString appends a string. One that needs no escapes is copied.
func appendString(out []byte, text string) []byte {
	for _, b := range []byte(text) {
		if b < ' ' || b >= 0x7f || b == '"' || b == '\\' {
			return appendAny(out, text)
		}
	}
	return append(append(append(out, '"'), text...), '"')
}

// appendAny appends any value. One that cannot be encoded is null, which no source returns.
func appendAny(out []byte, value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		return append(out, "null"...)
	}
	return append(out, text...)
}
