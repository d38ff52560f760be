package httphandler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

const (
	// maxDetail bounds the part of a response body that is kept with a failure, in bytes.
	maxDetail = 4 << 10
	// maxSummary bounds the part of it in the failure's summary line.
	maxSummary = 200
	// longestRetryAfter bounds the Retry-After of an app.
	longestRetryAfter = 24 * time.Hour
)

// failureFor returns the error of a request without a response. If there was no connection, the
// app has received nothing of the request, and no attempt is used.
func (h *Handler) failureFor(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			h.gate.recordFailure()
		}
		return err
	}
	var dial *net.OpError
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		h.gate.shutMisconfigured("its certificate is not trusted: " + certificate.Error())
		return fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
	case isRefusal(err):
		h.gate.shutMisconfigured("TLS: " + err.Error())
		return fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
	case errors.As(err, &name), errors.As(err, &dial) && dial.Op == "dial":
		h.gate.shutUnreachable("it cannot be reached: " + err.Error())
		return fmt.Errorf("%w: %w", err, handlers.ErrNotTried)
	}
	h.gate.recordFailure()
	return err
}

// isRefusal reports whether the app rejected this client in the TLS handshake: it has no TLS or an
// incompatible version, or requires a certificate.
func isRefusal(err error) bool {
	if errors.Is(err, nethttp.ErrSchemeMismatch) || errors.As(err, new(tls.RecordHeaderError)) {
		return true
	}
	// Go's TLS marks each alert of the peer this way.
	var refusal *net.OpError
	return errors.As(err, &refusal) && refusal.Op == "remote error"
}

// verdictOf returns the meaning of a status.
func (h *Handler) verdictOf(status int) Verdict {
	if v, found := h.cfg.Verdicts[status]; found {
		return v
	}
	switch {
	case status >= 200 && status < 300:
		return Done
	case h.cfg.Azure != nil: // like the host: all other statuses are failures
		return Retry
	case status < 400, status == 401, status == 403, status == 404, status == 405:
		return Pause
	case status == 408, status == 425, status == 429, status >= 500:
		return Retry
	}
	return Reject
}

// judgeAnswer returns nil for a successful response. For others it reports to the gate, and returns
// the error that decides what happens to the message.
func (h *Handler) judgeAnswer(a answer) error {
	verdict := h.verdictOf(a.status)
	if verdict == Done {
		return nil
	}
	failure := failureOf("the app answers "+a.text, a.body)
	switch verdict {
	case Reject:
		h.gate.recordSuccess() // the app works; only the message is bad
		return handlers.Reject(failure)
	case Pause:
		why := "it answers " + a.text
		if a.location != "" {
			why += ", to " + a.location
		}
		h.gate.shutMisconfigured(why + "; are the URL and the credentials right?")
		return fmt.Errorf("%w: %w", failure, handlers.ErrNotTried)
	}
	h.gate.recordFailure()
	if after, found := retryAfter(a.retryAfter, time.Now()); found {
		return handlers.RetryAfter(after, failure)
	}
	return failure
}

// failureOf returns a failure with the app's response body as the detail.
func failureOf(summary string, body []byte) *handlers.Failure {
	f := &handlers.Failure{Summary: summary, Detail: triggers.Tail(strings.ToValidUTF8(string(body[:min(len(body), maxDetail)]), "?"), maxDetail)}
	if line, _, _ := strings.Cut(strings.TrimSpace(f.Detail), "\n"); line != "" {
		f.Summary += ": " + strings.ToValidUTF8(line[:min(len(line), maxSummary)], "")
	}
	return f
}

// retryAfter parses a number of seconds, or a date.
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
