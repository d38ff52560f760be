package httptrigger

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
	"github.com/drover-run/drover/triggers/httptrigger/response"
)

const (
	// adminPrefix begins the paths that run functions by their names, as at Azure's host.
	adminPrefix = "/admin/functions/"
	// maxInput is the largest body of such a request, in bytes.
	maxInput = 1 << 20
)

// adminRun is the lease of a message that came by adminPrefix. It is not run again.
type adminRun struct {
	function string
	log      *slog.Logger
}

// Settle implements triggers.Lease.
func (a *adminRun) Settle(_ context.Context, m *triggers.Message, v triggers.Verdict) error {
	if v.Kind == triggers.Retry || v.Kind == triggers.Release {
		a.log.Warn("run by the admin API failed; it is not retried", "function", a.function, "message", m.ID)
	}
	return nil
}

// adminRuns runs functions by their names.
type adminRuns struct {
	access Access
	run    func(function string, d *triggers.Delivery) (found bool, err error)
	log    *slog.Logger
}

// runByName starts a function by its name, on the text or JSON that the request has as its input,
// and returns the response without waiting for the end.
func (a adminRuns) runByName(w http.ResponseWriter, r *http.Request, name string) *response.Response {
	switch {
	case a.access.Keys == nil:
		return response.NotFound // no trigger is open
	case a.access.isOpen() && !isLocal(r):
		return &response.Response{Status: http.StatusForbidden, Body: []byte("requests from browsers need a key\n")}
	case !a.access.allows(name, keys.Admin, r):
		return response.Unauthorized
	case r.Method != http.MethodPost:
		return &response.Response{Status: http.StatusMethodNotAllowed, Headers: [][2]string{{"Allow", http.MethodPost}}}
	}
	input, refused := readInput(w, r)
	if refused != nil {
		return refused
	}
	m := &triggers.Message{ID: newID(), Body: input, Attempt: 1, Enqueued: time.Now(), Subject: r.URL.Path}
	found, err := a.run(name, triggers.NewDelivery(m, &adminRun{name, a.log}))
	switch {
	case !found:
		return &response.Response{Status: http.StatusNotFound, Body: []byte("there is no function with this name\n")}
	case err != nil:
		return response.Unavailable(err.Error(), time.Second)
	}
	return &response.Response{Status: http.StatusAccepted}
}

// readInput reads {"input": ...}: a text unchanged, anything else as JSON.
func readInput(w http.ResponseWriter, r *http.Request) (input []byte, refused *response.Response) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxInput))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, bodyRefusal(errTooLarge)
	}
	if err != nil {
		return nil, bodyRefusal(err)
	}
	var request struct {
		Input json.RawMessage `json:"input"`
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(text, &request); err != nil {
		return nil, &response.Response{Status: http.StatusBadRequest, Body: []byte("the body is not JSON; send {\"input\": \"TEXT\"}\n")}
	}
	var plain string
	switch {
	case len(request.Input) == 0 || string(request.Input) == "null":
		return nil, nil
	case json.Unmarshal(request.Input, &plain) == nil:
		return []byte(plain), nil
	}
	return request.Input, nil
}

// isLocal reports whether a request without a key may come from a program on this machine. A
// browser sends an Origin, or a host name that an attacker has resolved to this machine.
func isLocal(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return r.Header.Get("Origin") == "" && (host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil)
}
