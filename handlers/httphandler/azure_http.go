package httphandler

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// This file handles HTTP requests for a custom handler: the host describes a request in the
// invocation, or forwards it.

// azureHost is the version of the host that this contract follows.
const azureHost = "4.0.0"

// isRequest reports whether a message is an HTTP request.
func isRequest(m *triggers.Message) bool { return m.Property(triggers.HTTPMethod) != "" }

// headersOf returns the headers of a message that is a request.
func headersOf(m *triggers.Message) nethttp.Header {
	out := make(nethttp.Header, len(m.Attributes))
	for name, value := range m.Attributes {
		out[name] = []string{value}
		if all := m.Repeated[name]; len(all) > 0 {
			out[name] = all
		}
	}
	return out
}

// describeRequest returns a request in the form that it has in an invocation.
func describeRequest(m *triggers.Message) map[string]any {
	known := m.Properties()
	query := make(map[string]string)
	values, _ := url.ParseQuery(known[triggers.HTTPQuery]) // the readable part of an invalid query
	for name, all := range values {
		query[name] = strings.Join(all, ",")
	}
	out := map[string]any{
		"Url": known[triggers.HTTPURL], "Method": known[triggers.HTTPMethod], "Query": query, "Headers": headersOf(m), "Params": paramsOf(m), "Identities": []any{},
	}
	if len(m.Body) > 0 {
		out["Body"] = any(m.Body) // base64
		kind, _, _ := strings.Cut(strings.ToLower(m.Attributes["Content-Type"]), ";")
		if kind = strings.TrimSpace(kind); kind != "application/octet-stream" && !strings.HasPrefix(kind, "multipart/") && utf8.Valid(m.Body) {
			out["Body"] = string(m.Body)
		}
	}
	return out
}

// paramsOf returns the parameters of a request's route.
func paramsOf(m *triggers.Message) map[string]any {
	out := make(map[string]any)
	_ = json.Unmarshal([]byte(m.Properties()[triggers.HTTPParams]), &out) // none if there is no route
	return out
}

// connectionHeaders are about a connection, and are not forwarded.
var connectionHeaders = []string{"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// forwardRequest implements Handle for a custom handler that gets HTTP requests unchanged. Its
// response, whatever the status, is the function's result.
func (h *Handler) forwardRequest(ctx context.Context, m *triggers.Message) ([]byte, error) {
	known := m.Properties()
	target, err := url.Parse(h.client.url)
	if err != nil {
		return nil, fmt.Errorf("reading the URL: %w", err)
	}
	own, err := url.Parse(known[triggers.HTTPURL])
	if err != nil {
		return nil, handlers.Reject(fmt.Errorf("reading the URL of the request: %w", err))
	}
	target.Path, target.RawPath, target.RawQuery = own.Path, own.RawPath, known[triggers.HTTPQuery]
	request, err := nethttp.NewRequestWithContext(ctx, known[triggers.HTTPMethod], target.String(), bytes.NewReader(m.Body))
	if err != nil {
		return nil, handlers.Reject(fmt.Errorf("making the request: %w", err))
	}
	request.Header = headersOf(m)
	for _, name := range connectionHeaders {
		request.Header.Del(name)
	}
	request.Header.Set("X-Azure-Functions-InvocationId", uuid.NewString())
	request.Header.Set("X-Azure-Functions-HostVersion", azureHost)
	if request.Header.Get("User-Agent") == "" {
		request.Header.Set("User-Agent", "drover")
	}
	response, err := h.client.transport.RoundTrip(request)
	if err != nil {
		return nil, h.failureFor(ctx, err)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, h.cfg.MaxResponse+1))
	_ = response.Body.Close() // the rest of one that is too long is not read
	if err != nil {
		return nil, h.failureFor(ctx, fmt.Errorf("reading the answer: %w", err))
	}
	if int64(len(body)) > h.cfg.MaxResponse {
		h.gate.recordFailure()
		return nil, fmt.Errorf("%w: more than max_response (%d) bytes", errTooLong, h.cfg.MaxResponse)
	}
	h.gate.recordSuccess()
	var headers [][2]string
	for name, values := range response.Header {
		if slices.Contains(connectionHeaders, name) {
			continue
		}
		for _, value := range values {
			headers = append(headers, [2]string{name, value})
		}
	}
	slices.SortStableFunc(headers, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return body, describeResponse(ctx, response.StatusCode, headers, "")
}

// describeResponse sets the properties of a function's result that is a response.
func describeResponse(ctx context.Context, status int, headers [][2]string, kind string) error {
	properties := triggers.Properties{triggers.HTTPStatus: strconv.Itoa(status)}
	if len(headers) > 0 {
		text, err := json.Marshal(headers)
		if err != nil {
			return fmt.Errorf("writing the headers of the response: %w", err)
		}
		properties[triggers.HTTPHeaders] = string(text)
	}
	if kind != "" {
		properties[triggers.ContentType] = kind
	}
	handlers.Describe(ctx, properties)
	return nil
}
