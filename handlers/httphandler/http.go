// Package httphandler is the handler that posts each message to an app: on localhost, on a unix
// socket, or on another host.
//
// The app's response decides. 2xx is success, and its body is the output. 408, 425, 429 and
// 5xx are failed attempts, and their Retry-After is honored. Other 4xx reject the message. If the
// app cannot be reached, or its response indicates a misconfiguration (401, 403, 404, 405, 3xx),
// the handler offers no slots. Then nothing is received and no attempt is used, and the handler
// checks the app until it works.
//
// A custom handler of Azure Functions uses its own protocol. With a Batch, one request has
// several messages, and each of them gets its own result.
package httphandler

import (
	"context"
	"errors"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Handler posts messages. Its Run checks the app while it does not work.
type Handler struct {
	cfg    Config
	client *client
	gate   *gate
	batch  *batcher // nil: one request per message
}

var (
	_ handlers.Handler = (*Handler)(nil)
	_ handlers.Slotted = (*Handler)(nil)
)

// New returns a handler that offers slots when Run has reached the app. It returns an error for an
// invalid configuration.
func New(cfg Config) (*Handler, error) {
	if cfg.MaxResponse <= 0 {
		cfg.MaxResponse = defaultMaxResponse
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	h := &Handler{cfg: cfg, client: c, gate: newGate(cfg.Slots, c.checkReady, cfg.Log)}
	if cfg.Batch != nil {
		h.batch = &batcher{h: h}
	}
	return h, nil
}

// Run checks the app while it does not work, until ctx ends.
func (h *Handler) Run(ctx context.Context) { h.gate.run(ctx) }

// IsOpen reports whether the app is considered working. Otherwise nothing is received for it, except
// for one message that tries it.
func (h *Handler) IsOpen() bool { return h.gate.isOpen() }

// ShutReason returns why the app is not considered working; empty if it is, or was not checked yet.
func (h *Handler) ShutReason() string {
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	return h.gate.why
}

// Slots implements handlers.Slotted.
func (h *Handler) Slots() *handlers.Slots { return h.gate.slots }

// Close implements handlers.Handler.
func (h *Handler) Close(context.Context) error {
	if h.batch != nil {
		h.batch.running.Wait()
	}
	h.client.closeIdle()
	return nil
}

// Handle implements handlers.Handler.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	switch {
	case h.cfg.Azure != nil:
		return h.invokeAzure(ctx, m)
	case h.batch != nil:
		return h.batch.handleMessage(ctx, m)
	}
	fields, body, err := h.cfg.Events.encodeRequest(h.cfg.Function, m)
	if err != nil {
		return nil, handlers.Reject(err)
	}
	a, err := h.postMessage(ctx, fields, body)
	if err != nil {
		return nil, err
	}
	h.gate.recordSuccess()
	if len(a.body) == 0 {
		return nil, nil
	}
	if len(a.properties) > 0 {
		handlers.Describe(ctx, a.properties)
	}
	return a.body, nil
}

// postMessage sends a request and returns a successful response. Otherwise it reports to the
// gate, and its error decides what happens to the message.
func (h *Handler) postMessage(ctx context.Context, fields []field, body []byte) (answer, error) {
	a, err := h.client.postRequest(ctx, fields, body)
	switch {
	case errors.Is(err, errTooLong):
		h.gate.recordFailure()
		return a, err
	case err != nil:
		return a, h.failureFor(ctx, err)
	}
	return a, h.judgeAnswer(a)
}
