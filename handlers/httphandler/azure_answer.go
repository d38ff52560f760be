package httphandler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file reads the responses of custom handlers.

// azureReturn is the name of the output binding for the ReturnValue.
const azureReturn = "$return"

// azureResult is a response.
type azureResult struct {
	Outputs     map[string]json.RawMessage
	Logs        []json.RawMessage
	ReturnValue json.RawMessage
}

// decodeResponse parses a response.
func decodeResponse(body []byte) (*azureResult, error) {
	result := new(azureResult)
	if body = bytes.TrimSpace(body); len(body) == 0 || body[0] != '{' {
		return nil, errors.New("the app's answer is not the JSON object of a custom handler")
	}
	if err := json.Unmarshal(body, result); err != nil {
		return nil, fmt.Errorf("the app's answer is not that of a custom handler: %w", err)
	}
	return result, nil
}

// chooseOutput returns the one output of a function.
func (z *Azure) chooseOutput(result *azureResult) (output []byte, err error) {
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
			return nil, fmt.Errorf("writing the outputs: %w", err)
		}
	}
	return output, nil
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

// replyOf returns the body of the response that an output value stands for, and sets its properties.
// The value is an object with statusCode, headers and body, in any case, or the body itself.
func replyOf(ctx context.Context, value json.RawMessage) ([]byte, error) {
	var reply struct {
		StatusCode, Status, Body json.RawMessage
		Headers                  map[string]json.RawMessage
	}
	status, body := nethttp.StatusOK, value
	var headers [][2]string
	if err := json.Unmarshal(value, &reply); err == nil && (reply.StatusCode != nil || reply.Status != nil || reply.Body != nil || reply.Headers != nil) {
		body = reply.Body
		for _, given := range []json.RawMessage{reply.StatusCode, reply.Status} {
			if text := string(unquoteJSON(given)); text != "" {
				if status, err = strconv.Atoi(text); err != nil {
					return nil, fmt.Errorf("the app's answer has the status %.100q, which is not a number", text)
				}
				break
			}
		}
		for name, given := range reply.Headers {
			for _, one := range messagesOf(given) {
				headers = append(headers, [2]string{name, string(one)})
			}
		}
		slices.SortStableFunc(headers, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	}
	kind := ""
	if trimmed := bytes.TrimSpace(body); len(trimmed) > 0 && trimmed[0] != '"' {
		kind = "application/json"
	}
	text := unquoteJSON(body)
	if text == nil {
		text, kind = []byte{}, "" // an empty body, and not no response
	}
	return text, describeResponse(ctx, status, headers, kind)
}

// messagesOf returns the messages of an output value: one for each element of a list.
func messagesOf(value json.RawMessage) (out [][]byte) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		list = []json.RawMessage{value}
	}
	for _, one := range list {
		if text := unquoteJSON(one); text != nil {
			out = append(out, text)
		}
	}
	return out
}

// valueOf returns the value for an output binding; empty if there is none.
func (r *azureResult) valueOf(binding string) json.RawMessage {
	if binding == azureReturn {
		return r.ReturnValue
	}
	return r.Outputs[binding]
}

// sendOutputs sends each of the named outputs its value, and removes that from the result.
func (z *Azure) sendOutputs(ctx context.Context, result *azureResult) error {
	for _, name := range z.Outputs {
		for _, body := range messagesOf(result.valueOf(name)) {
			var properties triggers.Properties
			if (body[0] == '{' || body[0] == '[') && json.Valid(body) {
				properties = triggers.Properties{triggers.ContentType: "application/json"}
			}
			if err := handlers.Send(ctx, name, body, properties); err != nil {
				return err
			}
		}
		if delete(result.Outputs, name); name == azureReturn {
			result.ReturnValue = nil
		}
	}
	return nil
}
