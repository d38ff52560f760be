// Package httphandler is the handler that posts each message to an app: on localhost, a
// unix socket, or anywhere.
//
// The app's answer decides: 2xx is done, and its body the output; 408, 425, 429 and
// 5xx are failed attempts, after whose Retry-After it is tried again; other 4xx
// reject the message. While the app cannot be reached, or answers as one that is
// not what was meant (401, 403, 404, 405, 3xx), the handler offers no room, so that
// nothing is received and no attempt burnt, and looks until that has changed.
//
// An app that is a custom handler of Azure Functions is spoken to in its own way. With
// a Batch, one request has the messages that are in flight together, and each of them
// a result of its own.
package httphandler

import (
	"context"
	"errors"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Handler posts messages. Its Run looks for the app where it is not there.
type Handler struct {
	cfg    Config
	client *client
	gate   *gate
	batch  *batcher // nil: a request for each message
}

var (
	_ handlers.Handler = (*Handler)(nil)
	_ handlers.Slotted = (*Handler)(nil)
)

// New returns a handler that offers room when its Run has found the app. The error
// says what is wrong with the configuration.
func New(cfg Config) (*Handler, error) {
	if cfg.MaxResponse <= 0 {
		cfg.MaxResponse = defaultMaxResponse
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	h := &Handler{cfg: cfg, client: c, gate: newGate(cfg.Slots, c.reachable, cfg.Log)}
	if cfg.Batch != nil {
		h.batch = &batcher{h: h}
	}
	return h, nil
}

// Run looks for the app while it is not there, until ctx ends.
func (h *Handler) Run(ctx context.Context) { h.gate.run(ctx) }

// Open reports whether the app is taken for well: while it is not, nothing is
// received for it, but for a message that tries.
func (h *Handler) Open() bool { return h.gate.isOpen() }

// Shut says why the app is not taken for well; empty if it is, or was not looked at yet.
func (h *Handler) Shut() string {
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
		return h.invoke(ctx, m)
	case h.batch != nil:
		return h.batch.handle(ctx, m)
	}
	fields, body, err := h.cfg.Events.encode(h.cfg.Function, m)
	if err != nil {
		return nil, handlers.Reject(err)
	}
	a, err := h.postMessage(ctx, fields, body)
	if err != nil {
		return nil, err
	}
	h.gate.succeeded()
	if len(a.body) == 0 {
		return nil, nil
	}
	if len(a.about) > 0 {
		handlers.Describe(ctx, a.about)
	}
	return a.body, nil
}

// postMessage sends a request, and returns a successful answer. Otherwise it has reported to the
// gate, and the error decides what happens to the message.
func (h *Handler) postMessage(ctx context.Context, fields []field, body []byte) (answer, error) {
	a, err := h.client.postRequest(ctx, fields, body)
	switch {
	case errors.Is(err, errTooLong):
		h.gate.failed()
		return a, err
	case err != nil:
		return a, h.failureFor(ctx, err)
	}
	return a, h.judge(a)
}
