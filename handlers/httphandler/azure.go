package httphandler

import (
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
	// azureTime is the host's time format in data, and azureClock the one of its own time.
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
	z := h.cfg.Azure
	if z.Forward && isRequest(m) {
		return h.forwardRequest(ctx, m)
	}
	id := uuid.NewString()
	body, err := z.encodeInvocation(h.cfg.Function, m, time.Now())
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
	result, err := decodeResponse(a.body)
	if err == nil {
		h.logLines(m, id, result.Logs)
	}
	if err == nil {
		err = z.sendOutputs(ctx, result)
	}
	var output []byte
	switch {
	case err != nil:
	case z.Named:
		if reply := result.valueOf(z.Reply); isPresent(reply) {
			output, err = replyOf(ctx, reply)
		}
	default:
		output, err = z.chooseOutput(result)
		describeJSON(ctx, output)
	}
	if err != nil {
		h.gate.recordFailure()
		return nil, failureOf(err.Error(), a.body)
	}
	h.gate.recordSuccess()
	return output, nil
}

// encodeInvocation returns the body of a request.
func (z *Azure) encodeInvocation(function string, m *triggers.Message, now time.Time) ([]byte, error) {
	var data any = m.Body // base64
	switch {
	case isRequest(m):
		data = describeRequest(m)
	case z.JSON:
		if !json.Valid(m.Body) {
			return nil, errors.New("the body is not JSON, which data_type json requires")
		}
		data = json.RawMessage(m.Body)
	case !z.Binary:
		if !utf8.Valid(m.Body) {
			return nil, errors.New("the body is not UTF-8, which data_type string requires; use data_type: binary")
		}
		data = azureValue(string(m.Body))
	}
	var properties map[string]any
	switch {
	case isRequest(m):
		properties = paramsOf(m)
	case m.Origin != nil:
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
