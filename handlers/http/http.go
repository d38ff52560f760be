// Package http is the handler that posts each message to an app: on localhost, a
// unix socket, or anywhere.
//
// The app's answer decides: 2xx is done, and its body the output; 408, 425, 429 and
// 5xx are failed attempts, after whose Retry-After it is tried again; other 4xx
// reject the message. While the app cannot be reached, or answers as one that is
// not what was meant (401, 403, 404, 405, 3xx), the handler offers no room, so that
// nothing is received and no attempt burnt, and looks until that has changed.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Verdict is what an answer's status means.
type Verdict string

// The verdicts.
const (
	Done   Verdict = "done"
	Retry  Verdict = "retry"
	Reject Verdict = "reject"
	// Pause gives the message back, and receives no more until the app is another.
	Pause Verdict = "pause"
)

// Config is a handler. Function, URL and Slots are needed.
type Config struct {
	Function string
	// URL is http, https, or unix:PATH:/PATH, a socket and a path of the app on it.
	URL string
	// Ready is a URL, of the same kinds, that answers 2xx when the app is ready;
	// empty: it is, when it can be reached.
	Ready string
	// Events is how a message becomes a request.
	Events Events
	// Headers are added to each request.
	Headers map[string]string
	// Verdicts says what single statuses mean, in place of the defaults.
	Verdicts map[int]Verdict
	// Slots is how many requests are in flight at once.
	Slots int
	// MaxResponse bounds an answer's body, in bytes; 1 MiB.
	MaxResponse int64
	// HTTP2 speaks HTTP/2 without TLS.
	HTTP2 bool
	TLS   *tls.Config // nil: the machine's roots
	Log   *slog.Logger
}

const (
	defaultMaxResponse = 1 << 20
	dialLimit          = 5 * time.Second
	idleLimit          = 90 * time.Second
	// maxDetail is how much of an answer's body is kept of a failure, in bytes.
	maxDetail = 4 << 10
	// maxSummary is how much of it is in the failure's one line.
	maxSummary = 200
	// longestRetryAfter bounds what an app may ask for.
	longestRetryAfter = 24 * time.Hour
)

// Handler posts messages. Its Run looks for the app where it is not there.
type Handler struct {
	cfg   Config
	url   string // as the client has it
	ready string
	// No client: nothing is to be followed, and there are no cookies.
	transport *nethttp.Transport
	gate      *gate
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
	h := &Handler{cfg: cfg}
	socket, target, err := SplitURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	h.url = target
	dialer := &net.Dialer{Timeout: dialLimit}
	sockets := make(map[string]string) // by the host that stands for one
	if socket != "" {
		sockets[hostOf(target)] = socket
	}
	if cfg.Ready != "" {
		socket, target, err := SplitURL(cfg.Ready)
		if err != nil {
			return nil, err
		}
		if h.ready = target; socket != "" {
			sockets[hostOf(target)] = socket
		}
	}
	h.transport = &nethttp.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, err := net.SplitHostPort(address); err == nil && sockets[host] != "" {
				return dialer.DialContext(ctx, "unix", sockets[host])
			}
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: dialLimit, IdleConnTimeout: idleLimit,
		// One connection for each slot, kept.
		MaxIdleConns: cfg.Slots + 1, MaxIdleConnsPerHost: cfg.Slots + 1,
		MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		DisableCompression: true,
	}
	if cfg.HTTP2 {
		h.transport.Protocols = new(nethttp.Protocols)
		h.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	h.gate = newGate(cfg.Slots, h.reachable, cfg.Log)
	return h, nil
}

// SplitURL returns the socket of a unix:PATH:/PATH, if it is one, and a URL that a
// client takes.
func SplitURL(text string) (socket, target string, err error) {
	if rest, found := strings.CutPrefix(text, "unix:"); found {
		socket, path, found := strings.Cut(rest, ":")
		if !found || !strings.HasPrefix(path, "/") || !strings.HasPrefix(socket, "/") {
			return "", "", fmt.Errorf("%q is no socket with a path: write it as unix:/run/app.sock:/orders", text)
		}
		return socket, fmt.Sprintf("http://socket-%x%s", socket, path), nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", "", fmt.Errorf("%q is no URL of an app: write it as http://127.0.0.1:8080/orders, https://..., or unix:/run/app.sock:/orders; credentials go into headers", text)
	}
	return "", text, nil
}

func hostOf(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Run looks for the app while it is not there, until ctx ends.
func (h *Handler) Run(ctx context.Context) { h.gate.run(ctx) }

// Slots implements handlers.Slotted.
func (h *Handler) Slots() *handlers.Slots { return h.gate.slots }

// Close implements handlers.Handler.
func (h *Handler) Close(context.Context) error {
	h.transport.CloseIdleConnections()
	return nil
}

// Handle implements handlers.Handler.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	header, body, err := h.cfg.Events.encode(h.cfg.Function, m)
	if err != nil {
		return nil, handlers.Reject(err)
	}
	request, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return nil, handlers.Reject(fmt.Errorf("making the request: %w", err))
	}
	request.Header = header
	for name, value := range h.cfg.Headers {
		request.Header.Set(name, value)
	}
	response, err := h.transport.RoundTrip(request)
	if err != nil {
		return nil, h.failed(ctx, err)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, h.cfg.MaxResponse+1))
	// What is left of an answer that is too long is not read: the connection ends.
	_ = response.Body.Close()
	switch {
	case err != nil:
		return nil, h.failed(ctx, fmt.Errorf("reading the answer: %w", err))
	case int64(len(text)) > h.cfg.MaxResponse:
		h.gate.failed()
		return nil, fmt.Errorf("the answer has more than max_response (%d) bytes", h.cfg.MaxResponse)
	}
	return h.judge(response, text)
}

// failed is a request without an answer. Where there was no connection, the app
// has seen nothing of it.
func (h *Handler) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			h.gate.failed()
		}
		return err
	}
	var dial *net.OpError
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		h.gate.pause("its certificate is not trusted: " + certificate.Error())
		return fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
	case errors.As(err, &name), errors.As(err, &dial) && dial.Op == "dial":
		h.gate.down("it cannot be reached: " + err.Error())
		return fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
	}
	h.gate.failed()
	return err
}

// verdictOf is what a status means.
func (h *Handler) verdictOf(status int) Verdict {
	if v, found := h.cfg.Verdicts[status]; found {
		return v
	}
	switch {
	case status >= 200 && status < 300:
		return Done
	case status < 400, status == 401, status == 403, status == 404, status == 405:
		return Pause
	case status == 408, status == 425, status == 429, status >= 500:
		return Retry
	}
	return Reject
}

// judge turns an answer into what Handle returns.
func (h *Handler) judge(response *nethttp.Response, body []byte) ([]byte, error) {
	verdict := h.verdictOf(response.StatusCode)
	if verdict == Done {
		h.gate.succeeded()
		if len(body) == 0 {
			return nil, nil
		}
		return body, nil
	}
	failure := &handlers.Failure{Summary: "the app answers " + response.Status, Detail: triggers.Tail(strings.ToValidUTF8(string(body[:min(len(body), maxDetail)]), "?"), maxDetail)}
	if line, _, _ := strings.Cut(strings.TrimSpace(failure.Detail), "\n"); line != "" {
		failure.Summary += ": " + line[:min(len(line), maxSummary)]
	}
	switch verdict {
	case Reject:
		h.gate.succeeded() // the app is well: the message is not
		return nil, handlers.Reject(failure)
	case Pause:
		why := "it answers " + response.Status
		if to := response.Header.Get("Location"); to != "" {
			why += ", to " + to
		}
		h.gate.pause(why + "; are the URL and the credentials right?")
		return nil, fmt.Errorf("%w: %w", failure, handlers.ErrNotTried)
	}
	h.gate.failed()
	if after, found := retryAfter(response.Header.Get("Retry-After"), time.Now()); found {
		return nil, handlers.RetryAfter(after, failure)
	}
	return nil, failure
}

// retryAfter reads seconds, or a date.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	if text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, int64(longestRetryAfter/time.Second))) * time.Second, true
	}
	at, err := nethttp.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), longestRetryAfter), true
}

// reachable asks whether the app is there, and ready.
func (h *Handler) reachable(ctx context.Context) error {
	target := h.ready
	if target == "" {
		return h.connects(ctx)
	}
	request, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("asking whether it is ready: %w", err)
	}
	response, err := h.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, response.Body, h.cfg.MaxResponse) // so that the connection is kept
	_ = response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 300 {
		return fmt.Errorf("it is not ready: %s", response.Status)
	}
	return nil
}

// connects opens a connection, and closes it.
func (h *Handler) connects(ctx context.Context) error {
	u, err := url.Parse(h.url)
	if err != nil {
		return fmt.Errorf("reading the URL: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := h.transport.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	return conn.Close()
}
