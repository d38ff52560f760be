package httphandler

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// part is a message in the body of a batch: its headers, if the format has headers, and its
// bytes.
type part struct {
	fields []field
	body   []byte
}

func (p part) byteSize() int64 {
	n := len(p.body)
	for _, f := range p.fields {
		n += len(f.name) + len(f.value) + 4
	}
	return int64(n)
}

// plainItem is a message in a JSON array that does not consist of events.
type plainItem struct {
	ID          string              `json:"id"`
	Attempt     int                 `json:"attempt"`
	Subject     string              `json:"subject,omitempty"`
	Enqueued    string              `json:"enqueued,omitempty"`
	ContentType string              `json:"content_type,omitempty"`
	Attributes  map[string]string   `json:"attributes,omitempty"`
	Repeated    map[string][]string `json:"repeated,omitempty"`
	Properties  triggers.Properties `json:"properties,omitempty"`
	Data        json.RawMessage     `json:"data,omitempty"`
	Base64      []byte              `json:"data_base64,omitempty"`
}

// encodePart returns the part of a message.
func (b *Batch) encodePart(e Events, function string, m *triggers.Message) (part, error) {
	if b.Multipart {
		fields, body, err := e.encodeRequest(function, m)
		return part{fields, body}, err
	}
	_, contentType := commonHeaders(function, m, 0)
	if e != Plain {
		body, err := encodeEvent(function, contentType, m, eventExtensions(m))
		return part{nil, body}, err
	}
	one := plainItem{ID: m.ID, Attempt: m.Attempt, Subject: m.Subject, ContentType: contentType, Attributes: m.Attributes, Repeated: m.Repeated, Properties: m.Properties()}
	if !m.Enqueued.IsZero() {
		one.Enqueued = m.Enqueued.UTC().Format(time.RFC3339Nano)
	}
	var err error
	if one.Data, one.Base64, err = embedData(contentType, m.Body); err != nil {
		return part{}, err
	}
	body, err := json.Marshal(one)
	if err != nil {
		return part{}, fmt.Errorf("writing the message: %w", err)
	}
	return part{nil, body}, nil
}

// eventExtensions returns the extension attributes of an event in an array, in addition to the core
// attributes of CloudEvents. Their names consist of letters and digits.
func eventExtensions(m *triggers.Message) map[string]any {
	out := make(map[string]any, len(m.Attributes)+1)
	add := func(name, value string) {
		clean := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, strings.ToLower(name))
		switch clean {
		case "", "specversion", "id", "source", "type", "time", "subject", "data", "datacontenttype", "dataschema", "contenttype":
			return
		}
		if len(out) < maxAttributes && len(value) <= longestAttribute {
			out[clean] = strings.ToValidUTF8(value, "")
		}
	}
	for name, value := range m.Attributes {
		add(name, value)
	}
	for name, value := range m.Properties() { // the source's value takes precedence over the sender's
		add(name, value)
	}
	out["droverattempt"] = m.Attempt
	return out
}

// encodeBatch returns the headers and the body of a batch request.
func (b *Batch) encodeBatch(e Events, function string, items []*item) ([]field, []byte, error) {
	fields := []field{{"User-Agent", "drover"}, {"Drover-Function", function}, {"Drover-Batch", strconv.Itoa(len(items))}}
	var body bytes.Buffer
	if b.Multipart {
		w := multipart.NewWriter(&body)
		for _, it := range items {
			header := make(textproto.MIMEHeader, len(it.part.fields))
			for _, f := range it.part.fields[1:] { // the User-Agent belongs to the request
				header.Add(f.name, f.value)
			}
			into, err := w.CreatePart(header)
			if err == nil {
				_, err = into.Write(it.part.body)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("writing the batch: %w", err)
			}
		}
		if err := w.Close(); err != nil {
			return nil, nil, fmt.Errorf("writing the batch: %w", err)
		}
		return append(fields, field{"Content-Type", "multipart/mixed; boundary=" + w.Boundary()}), body.Bytes(), nil
	}
	for i, it := range items {
		body.WriteByte("[,"[min(i, 1)])
		body.Write(it.part.body)
	}
	body.WriteByte(']')
	contentType := "application/cloudevents-batch+json; charset=utf-8"
	if e == Plain {
		contentType = "application/json"
	}
	return append(fields, field{"Content-Type", contentType}), body.Bytes(), nil
}

// result is the result of one message in a response.
type result struct {
	ID         string          `json:"id"`
	Status     int             `json:"status"`
	RetryAfter json.RawMessage `json:"retry_after"`
	Output     json.RawMessage `json:"output"`
	Base64     string          `json:"output_base64"`
	Error      string          `json:"error"`
}

// decodeResults parses a successful response. It returns nil if the response has no results of
// single messages: then all are done. A response that begins like JSON must be valid JSON.
// Otherwise it is unknown which messages are done.
func decodeResults(body []byte) (map[string]result, error) {
	var list []result
	body = bytes.TrimSpace(body)
	switch {
	case bytes.HasPrefix(body, []byte("[")):
		if err := json.Unmarshal(body, &list); err != nil {
			return nil, fmt.Errorf("the app's results cannot be read: %w", err)
		}
	case bytes.HasPrefix(body, []byte("{")):
		var a struct {
			Results []result `json:"results"`
		}
		if err := json.Unmarshal(body, &a); err != nil {
			return nil, fmt.Errorf("the app's results cannot be read: %w", err)
		}
		if list = a.Results; list == nil {
			return nil, nil
		}
	default:
		return nil, nil
	}
	out := make(map[string]result, len(list))
	for _, r := range list {
		if _, twice := out[r.ID]; twice {
			return nil, fmt.Errorf("the app's answer has two results for %q", r.ID)
		}
		out[r.ID] = r
	}
	return out, nil
}

// itemOf returns the output or the error of one message of a batch.
func (h *Handler) itemOf(r result) ([]byte, error) {
	if r.Status == 0 {
		if r.Status = 200; r.Error != "" {
			r.Status = 500
		}
	}
	verdict, given := h.cfg.Verdicts[r.Status]
	if !given {
		switch verdict = h.verdictOf(r.Status); {
		case verdict == Pause && r.Status >= 400: // the URL is right, so the message is bad
			verdict = Reject
		case verdict == Pause:
			verdict = Retry
		}
	}
	if verdict == Done {
		if r.Base64 == "" {
			return unquoteJSON(r.Output), nil
		}
		out, err := base64.StdEncoding.DecodeString(r.Base64)
		if err != nil {
			return nil, fmt.Errorf("the app's output_base64: %w", err)
		}
		return out, nil
	}
	failure := failureOf(fmt.Sprintf("the app answers %d for it", r.Status), []byte(r.Error))
	switch verdict {
	case Reject:
		return nil, handlers.Reject(failure)
	case Pause:
		h.gate.shutMisconfigured(fmt.Sprintf("it answers %d for a message; are the URL and the credentials right?", r.Status))
		return nil, fmt.Errorf("%w: %w", failure, handlers.ErrNotTried)
	}
	if after, found := retryAfter(strings.Trim(string(r.RetryAfter), `"`), time.Now()); found {
		return nil, handlers.RetryAfter(after, failure)
	}
	return nil, failure
}

// item is a message in a batch.
type item struct {
	m    *triggers.Message
	part part
	done chan struct{} // closed when it has an output or an error
	out  []byte
	err  error
}
