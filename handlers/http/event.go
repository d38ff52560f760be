package http

import (
	"encoding/json"
	"fmt"
	"mime"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/drover-run/drover/triggers"
)

// Events is how a message becomes a request.
type Events string

// The ways. Binary and structured are those of CloudEvents 1.0; plain is the body
// alone. All have the headers Drover-Function, -Attempt and -Message-Id, and an
// attribute NAME as Drover-Attribute-NAME: a sender of messages does not choose
// what headers an app gets.
const (
	Binary     Events = "binary"
	Structured Events = "structured"
	Plain      Events = "off"
)

const (
	eventVersion = "1.0"
	eventType    = "run.drover.message"
	anyType      = "application/octet-stream"
	// maxAttributes bounds the headers that are made of attributes.
	maxAttributes = 64
	// longestAttribute bounds one's value, in bytes; longer ones are left out.
	longestAttribute = 8 << 10
)

// encode makes the headers and the body of a request.
func (e Events) encode(function string, m *triggers.Message) (nethttp.Header, []byte, error) {
	h := make(nethttp.Header, len(m.Attributes)+12)
	values := make([]string, 0, 12)
	// set is Header.Set for names that are canonical, with one allocation for all.
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	id := percent(m.ID)
	set("Drover-Function", function)
	set("Drover-Attempt", strconv.Itoa(m.Attempt))
	set("Drover-Message-Id", id)
	set("User-Agent", "drover")
	n := 0
	contentType := anyType
	for name, value := range m.Attributes {
		switch strings.ToLower(name) {
		case "content-type", "datacontenttype":
			if _, _, err := mime.ParseMediaType(value); err == nil && httpguts.ValidHeaderFieldValue(value) {
				contentType = value
			}
			continue
		case "traceparent", "tracestate", "diagnostic-id": // the context of a trace goes on
			if httpguts.ValidHeaderFieldValue(value) {
				h.Set(name, value)
			}
			continue
		}
		if n++; n > maxAttributes || len(value) > longestAttribute || !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		h.Set("Drover-Attribute-"+name, percent(value))
	}
	switch e {
	case Binary:
		set("Ce-Specversion", eventVersion)
		set("Ce-Id", id)
		set("Ce-Source", percent(source(function, m)))
		set("Ce-Type", eventType)
		if !m.Enqueued.IsZero() {
			set("Ce-Time", m.Enqueued.UTC().Format(time.RFC3339Nano))
		}
		if m.Subject != "" {
			set("Ce-Subject", percent(m.Subject))
		}
	case Structured:
		body, err := structured(function, contentType, m)
		h.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
		return h, body, err
	}
	set("Content-Type", contentType)
	return h, m.Body, nil
}

func source(function string, m *triggers.Message) string {
	if m.Subject != "" {
		return "/" + m.Subject
	}
	return "/functions/" + function
}

// cloudEvent is the structured form. Data that is JSON stays JSON.
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

func structured(function, contentType string, m *triggers.Message) ([]byte, error) {
	e := cloudEvent{
		SpecVersion: eventVersion, ID: m.ID, Source: source(function, m), Type: eventType,
		Subject: m.Subject, ContentType: contentType,
	}
	if !m.Enqueued.IsZero() {
		e.Time = m.Enqueued.UTC().Format(time.RFC3339Nano)
	}
	kind, _, _ := mime.ParseMediaType(contentType) // checked before
	switch {
	case len(m.Body) == 0:
	case (kind == "application/json" || strings.HasSuffix(kind, "+json")) && json.Valid(m.Body):
		e.Data = m.Body
	case strings.HasPrefix(kind, "text/") && utf8.Valid(m.Body):
		text, err := json.Marshal(string(m.Body))
		if err != nil {
			return nil, fmt.Errorf("writing the event: %w", err)
		}
		e.Data = text
	default:
		e.Base64 = m.Body
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("writing the event: %w", err)
	}
	return body, nil
}

// percent writes what a header cannot hold as CloudEvents' binding to HTTP does:
// space, quote, percent, and all that is not printable ASCII as %XX.
func percent(text string) string {
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
