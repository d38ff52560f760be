package httphandler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

const (
	// azureHost is the version of the host that this contract follows.
	azureHost = "4.0.0"
	// azureReturn is the name of the output binding for the ReturnValue.
	azureReturn = "$return"
	// azureTime is the host's format of a time, and azureClock that of its own time.
	azureTime  = "2006-01-02T15:04:05-07:00"
	azureClock = "2006-01-02T15:04:05.0000000Z"
	// maxLogs bounds the logged lines of one response, and longestLog the bytes of a line.
	maxLogs    = 1000
	longestLog = 16 << 10
)

// invocation is the body of a request.
type invocation struct {
	Data     map[string]any
	Metadata map[string]any
}

// invokeAzure implements Handle for an app that is a custom handler.
func (h *Handler) invokeAzure(ctx context.Context, m *triggers.Message) ([]byte, error) {
	id := uuid.NewString()
	body, err := h.cfg.Azure.encodeInvocation(h.cfg.Function, m, time.Now())
	if err != nil {
		return nil, handlers.Reject(err)
	}
	fields, _ := commonHeaders(h.cfg.Function, m, 3)
	fields = append(fields, field{"Content-Type", "application/json; charset=utf-8"},
		field{"X-Azure-Functions-InvocationId", id}, field{"X-Azure-Functions-HostVersion", azureHost})
	a, err := h.postMessage(ctx, fields, body)
	if err != nil {
		return nil, err
	}
	output, logs, err := h.cfg.Azure.decodeResponse(a.body)
	h.logLines(m, id, logs)
	if err != nil {
		h.gate.recordFailure()
		return nil, failureOf(err.Error(), a.body)
	}
	h.gate.recordSuccess()
	describeJSON(ctx, output)
	return output, nil
}

// encodeInvocation returns the body of a request.
func (z *Azure) encodeInvocation(function string, m *triggers.Message, now time.Time) ([]byte, error) {
	var data any = m.Body // base64
	if !z.Binary {
		if !utf8.Valid(m.Body) {
			return nil, errors.New("the body is no text in UTF-8, which data_type string is for; use data_type: binary")
		}
		data = azureValue(string(m.Body))
	}
	var properties map[string]any
	if m.Origin != nil {
		properties = m.Origin.Native()
	}
	if properties == nil { // a source that Azure does not have gets the properties of the simplest one
		properties = map[string]any{"Id": m.ID, "DequeueCount": int64(m.Attempt)}
		if !m.Enqueued.IsZero() {
			properties["InsertionTime"] = m.Enqueued
		}
		if len(m.Attributes) > 0 {
			properties["ApplicationProperties"] = m.Attributes
		}
	}
	metadata := make(map[string]any, len(properties)+1)
	for name, value := range properties {
		metadata[name] = azureValue(value)
	}
	metadata["sys"] = map[string]string{"MethodName": function, "UtcNow": now.UTC().Format(azureClock), "RandGuid": uuid.NewString()}
	body, err := json.Marshal(invocation{map[string]any{z.Binding: data}, metadata})
	if err != nil {
		return nil, fmt.Errorf("writing the invocation: %w", err)
	}
	return body, nil
}

// azureValue returns a value as the host encodes it: times and objects are unchanged,
// all others are JSON in a string.
func azureValue(value any) any {
	switch v := value.(type) {
	case time.Time:
		return v.UTC().Format(azureTime)
	case map[string]any, map[string]string:
		return v
	}
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return fmt.Sprint(value)
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// decodeResponse parses a response: the function's output and its log lines.
func (z *Azure) decodeResponse(body []byte) (output []byte, logs []json.RawMessage, err error) {
	var result struct {
		Outputs     map[string]json.RawMessage
		Logs        []json.RawMessage
		ReturnValue json.RawMessage
	}
	if body = bytes.TrimSpace(body); len(body) == 0 || body[0] != '{' {
		return nil, nil, errors.New("the app's answer is not the JSON object of a custom handler")
	}
	if err := json.Unmarshal(body, &result); err != nil {
		return nil, nil, fmt.Errorf("the app's answer is not that of a custom handler: %w", err)
	}
	given := make(map[string]json.RawMessage, len(result.Outputs))
	for name, value := range result.Outputs {
		if isPresent(value) {
			given[name] = value
		}
	}
	switch {
	case z.Output == azureReturn, z.Output == "" && isPresent(result.ReturnValue):
		output = unquoteJSON(result.ReturnValue)
	case z.Output != "":
		output = unquoteJSON(given[z.Output])
	case len(given) == 1:
		for _, value := range given {
			output = unquoteJSON(value)
		}
	case len(given) > 1:
		if output, err = json.Marshal(given); err != nil {
			return nil, result.Logs, fmt.Errorf("writing the outputs: %w", err)
		}
	}
	return output, result.Logs, nil
}

func isPresent(value json.RawMessage) bool { return len(value) > 0 && string(value) != "null" }

// unquoteJSON returns a string without quotes, and any other value as JSON; nil if there is none.
func unquoteJSON(value json.RawMessage) []byte {
	if !isPresent(value) {
		return nil
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		return value
	}
	if text == "" {
		return nil
	}
	return []byte(text)
}

// logLines writes the function's log lines to the log.
func (h *Handler) logLines(m *triggers.Message, invocation string, lines []json.RawMessage) {
	for i, line := range lines {
		if i == maxLogs {
			h.cfg.Log.Warn("the app logged more for one message; the rest is left out", "message", m.ID, "lines", len(lines))
			return
		}
		text := string(unquoteJSON(line))
		h.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, strings.ToValidUTF8(text[:min(len(text), longestLog)], ""),
			slog.String("message", m.ID), slog.String("invocation", invocation))
	}
}
