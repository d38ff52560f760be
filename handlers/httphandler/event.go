package httphandler

import (
	"encoding/json"
	"fmt"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/drover-run/drover/triggers"
)

// Events is the format of a request.
type Events string

// The formats. Binary and structured are defined by CloudEvents 1.0; plain is only the body. All
// have the headers Drover-Function, Drover-Attempt and Drover-Message-Id. An attribute NAME
// becomes Drover-Attribute-NAME, so that the sender of a message cannot choose the headers that
// an app receives.
const (
	Binary     Events = "binary"
	Structured Events = "structured"
	Plain      Events = "off"
)

const (
	eventVersion = "1.0"
	eventType    = "run.drover.message"
	anyType      = "application/octet-stream"
	// maxAttributes bounds the headers made from attributes.
	maxAttributes = 64
)

// encodeRequest returns the headers and the body of a request.
func (e Events) encodeRequest(function string, m *triggers.Message) ([]field, []byte, error) {
	fields, contentType := commonHeaders(function, m, 6)
	fields = propertyHeaders(addAttributes(fields, m), m.Properties())
	switch e {
	case Binary:
		fields = append(fields,
			field{"Ce-Specversion", eventVersion}, field{"Ce-Id", percentEncode(m.ID)},
			field{"Ce-Source", percentEncode(eventSource(function, m))}, field{"Ce-Type", eventType})
		if !m.Enqueued.IsZero() {
			fields = append(fields, field{"Ce-Time", m.Enqueued.UTC().Format(time.RFC3339Nano)})
		}
		if m.Subject != "" {
			fields = append(fields, field{"Ce-Subject", percentEncode(m.Subject)})
		}
	case Structured:
		body, err := encodeEvent(function, contentType, m, nil)
		return append(fields, field{"Content-Type", "application/cloudevents+json; charset=utf-8"}), body, err
	}
	return append(fields, field{"Content-Type", contentType}), m.Body, nil
}

// commonHeaders returns the headers of a request in any format, with capacity for more headers, and
// the content type of the message's body.
func commonHeaders(function string, m *triggers.Message, more int) (fields []field, contentType string) {
	fields = make([]field, 0, 5+len(m.Attributes)+more)
	fields = append(fields,
		field{"User-Agent", "drover"}, field{"Drover-Function", function},
		field{"Drover-Attempt", strconv.Itoa(m.Attempt)}, field{"Drover-Message-Id", percentEncode(m.ID)})
	contentType = m.Properties()[triggers.ContentType]
	sure := isType(contentType)
	if !sure {
		contentType = anyType
	}
	for name, value := range m.Attributes {
		switch strings.ToLower(name) {
		case "content-type", "datacontenttype":
			if !sure && isType(value) {
				contentType = value
			}
		case "traceparent", "tracestate", "diagnostic-id": // the trace context is passed through
			if httpguts.ValidHeaderFieldValue(value) {
				fields = append(fields, field{name, value})
			}
		}
	}
	return fields, contentType
}

// isType reports whether a text is a valid Content-Type.
func isType(text string) bool {
	_, _, err := mime.ParseMediaType(text)
	return err == nil && httpguts.ValidHeaderFieldValue(text)
}

// addAttributes adds the attributes that are not among the common headers.
func addAttributes(fields []field, m *triggers.Message) []field {
	n := 0
	for name, value := range m.Attributes {
		switch strings.ToLower(name) {
		case "content-type", "datacontenttype", "traceparent", "tracestate", "diagnostic-id":
			continue
		}
		if n++; n > maxAttributes {
			continue
		}
		fields = headerValues(fields, m, name, value)
	}
	return fields
}

func eventSource(function string, m *triggers.Message) string {
	if m.Subject != "" {
		return "/" + m.Subject
	}
	return "/functions/" + function
}

// cloudEvent is the structured format. JSON data stays JSON.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Time        string          `json:"time,omitempty"`
	Subject     string          `json:"subject,omitempty"`
	ContentType string          `json:"datacontenttype,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Base64      []byte          `json:"data_base64,omitempty"`
}

// encodeEvent returns an event, with extensions if there are any.
func encodeEvent(function, contentType string, m *triggers.Message, extensions map[string]any) ([]byte, error) {
	e := cloudEvent{
		SpecVersion: eventVersion, ID: m.ID, Source: eventSource(function, m), Type: eventType,
		Subject: m.Subject, ContentType: contentType,
	}
	if !m.Enqueued.IsZero() {
		e.Time = m.Enqueued.UTC().Format(time.RFC3339Nano)
	}
	var err error
	if e.Data, e.Base64, err = embedData(contentType, m.Body); err != nil {
		return nil, err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("writing the event: %w", err)
	}
	if len(extensions) == 0 {
		return body, nil
	}
	more, err := json.Marshal(extensions)
	if err != nil {
		return nil, fmt.Errorf("writing the event: %w", err)
	}
	body[len(body)-1] = ','
	return append(body, more[1:]...), nil
}

// embedData returns a body for embedding in JSON: unchanged if its type is JSON, as a string if it
// is text, otherwise in base64.
func embedData(contentType string, body []byte) (json.RawMessage, []byte, error) {
	kind, _, _ := mime.ParseMediaType(contentType) // validated before
	switch {
	case len(body) == 0:
		return nil, nil, nil
	case (kind == "application/json" || strings.HasSuffix(kind, "+json")) && json.Valid(body):
		return body, nil, nil
	case strings.HasPrefix(kind, "text/") && utf8.Valid(body):
		text, err := json.Marshal(string(body))
		if err != nil {
			return nil, nil, fmt.Errorf("writing the event: %w", err)
		}
		return text, nil, nil
	}
	return nil, body, nil
}
