package httphandler

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file converts the properties of messages to headers of requests, and from those of
// responses.

// longestAttribute bounds the value of an attribute or a property, in bytes; longer ones are omitted.
const longestAttribute = 8 << 10

const (
	// propertyPrefix begins the header of a property: Drover-Property-Correlation-Id is
	// correlation_id.
	propertyPrefix = "Drover-Property-"
	// attributePrefix begins the header of an attribute.
	attributePrefix = "Drover-Attribute-"
)

// propertyHeaders adds the properties of a message. The content type has its own header.
func propertyHeaders(fields []field, known triggers.Properties) []field {
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if value := known[name]; name != triggers.ContentType && len(value) <= longestAttribute {
			fields = append(fields, field{propertyHeader(name), percentEncode(value)})
		}
	}
	return fields
}

// propertyHeader returns the name of a property's header.
func propertyHeader(name string) string {
	words := strings.Split(name, "_")
	for i, word := range words {
		if word != "" {
			words[i] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return propertyPrefix + strings.Join(words, "-")
}

// propertyOf returns the property or attribute of the output that a response header sets, if any.
func propertyOf(header string) (name string, ok bool) {
	if strings.EqualFold(header, "Content-Type") {
		return triggers.ContentType, true
	}
	if n := len(propertyPrefix); len(header) > n && strings.EqualFold(header[:n], propertyPrefix) {
		name = strings.ReplaceAll(strings.ToLower(header[n:]), "-", "_")
		return name, slices.Contains(triggers.Settable, name)
	}
	if n := len(attributePrefix); len(header) > n && strings.EqualFold(header[:n], attributePrefix) {
		return triggers.AttributePrefix + header[n:], true
	}
	return "", false
}

// describeJSON sets the content type of an output that is a JSON object or list.
func describeJSON(ctx context.Context, output []byte) {
	if len(output) > 0 && (output[0] == '{' || output[0] == '[') && json.Valid(output) {
		handlers.Describe(ctx, triggers.Properties{triggers.ContentType: "application/json"})
	}
}

// headerValues adds the values of an attribute, one header per value.
func headerValues(fields []field, m *triggers.Message, name, value string) []field {
	values := []string{value}
	if all := m.Repeated[name]; len(all) > 0 {
		values = all
	}
	for _, value := range values {
		if len(value) <= longestAttribute && httpguts.ValidHeaderFieldName(name) {
			fields = append(fields, field{attributePrefix + name, percentEncode(value)})
		}
	}
	return fields
}

// percentDecode decodes the output of percentEncode. It leaves other text unchanged.
func percentDecode(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) && hexDigit(text[i+1]) >= 0 && hexDigit(text[i+2]) >= 0 {
			b.WriteByte(byte(hexDigit(text[i+1])<<4 | hexDigit(text[i+2])))
			i += 2
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// percentEncode encodes characters that a header cannot contain, as in CloudEvents' HTTP binding:
// space, quote, percent, and everything but printable ASCII become %XX.
func percentEncode(text string) string {
	plain := true
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '"' || c == '%' {
			plain = false
			break
		}
	}
	if plain {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// field is one header of a request.
type field struct{ name, value string }
