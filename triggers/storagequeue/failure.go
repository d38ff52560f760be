package storagequeue

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"
)

// A right is a permission of an identity or a signature, in Azure's terms.
type right struct{ role, letter string }

var (
	process = right{"Storage Queue Data Message Processor", "p (process)"}
	peek    = right{"Storage Queue Data Reader", "r (read)"}
	add     = right{"Storage Queue Data Message Sender", "a (add)"}
	// The role Message Processor may get and delete, but not update.
	update = right{"Storage Queue Data Contributor", "u (update)"}
	create = right{"Storage Queue Data Contributor", "c (create), of an account"}
)

// failure is an error with a text of one line. The SDK's own errors have many lines, and
// network errors quote the address, which may contain a signature.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// explain adds advice to an error; needs is the right that the request required.
func explain(err error, needs right) error {
	if err == nil {
		return nil
	}
	var web *url.Error
	if errors.As(err, &web) {
		host, advice := "", ""
		if at, bad := url.Parse(web.URL); bad == nil {
			host = at.Host + ": "
			if errors.Is(web.Err, syscall.ECONNREFUSED) && strings.HasPrefix(at.Path, "/"+developmentAccount+"/") {
				advice = "; is the storage emulator running? To start one: drover emulate storagequeue"
			}
		}
		return &failure{host + web.Err.Error() + advice, web.Err}
	}
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) {
		return err
	}
	text := fmt.Sprintf("%s (HTTP %d)", refused.ErrorCode, refused.StatusCode)
	if refused.ErrorCode == "" {
		text = fmt.Sprintf("HTTP %d", refused.StatusCode)
	}
	if advice := advise(err, refused, needs); advice != "" {
		text += "; " + advice
	}
	return &failure{text, err}
}

func advise(err error, refused *azcore.ResponseError, needs right) string {
	detail := detailOf(refused.RawResponse)
	switch {
	case queueerror.HasCode(err, queueerror.QueueNotFound):
		return "check the name; create: true creates it"
	case queueerror.HasCode(err, queueerror.QueueBeingDeleted):
		return "it is being deleted, which takes Azure at least half a minute"
	case queueerror.HasCode(err, queueerror.AuthenticationFailed, queueerror.InvalidAuthenticationInfo):
		return strings.TrimSpace("the key or signature is wrong or has expired, or this machine's clock is wrong; " + detail)
	case queueerror.HasCode(err, queueerror.AuthorizationPermissionMismatch, queueerror.AuthorizationFailure,
		queueerror.InsufficientAccountPermissions, queueerror.AuthorizationResourceTypeMismatch, queueerror.AuthorizationServiceMismatch):
		return fmt.Sprintf("the identity needs the role %s, a signature the permission %s; also check the account's firewall", needs.role, needs.letter)
	case queueerror.HasCode(err, queueerror.InvalidHeaderValue) && strings.Contains(strings.ToLower(detail), "version"):
		return "the server does not know the version " + versionOf(refused.RawResponse) + " of the API, which drover uses: use a newer one (Azurite 3.37.0, or newer), or start Azurite with --skipApiVersionCheck"
	case refused.StatusCode == http.StatusServiceUnavailable, refused.StatusCode == http.StatusTooManyRequests:
		return "the account is throttled"
	}
	return detail
}

func versionOf(r *http.Response) string {
	if r == nil || r.Request == nil {
		return ""
	}
	for name, values := range r.Request.Header { // the SDK writes it in lower case
		if strings.EqualFold(name, "x-ms-version") {
			return values[0]
		}
	}
	return ""
}

// maxDetail bounds the quoted part of a response.
const maxDetail = 400

// detailOf returns the service's description of an error.
func detailOf(r *http.Response) string {
	if r == nil {
		return ""
	}
	body, err := runtime.Payload(r)
	if err != nil {
		return ""
	}
	var said struct {
		Message string `xml:"Message"`
		Detail  string `xml:"AuthenticationErrorDetail"`
	}
	if xml.Unmarshal(body, &said) != nil {
		return ""
	}
	text, _, _ := strings.Cut(said.Message, "\n") // the next lines are the ID and the time of the request
	if said.Detail != "" {
		text = said.Detail
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "") + "..."
	}
	return text
}

// stale reports whether an error means that a receipt is no longer valid: the message was
// delivered again, or deleted.
func stale(err error) bool {
	return queueerror.HasCode(err, queueerror.PopReceiptMismatch, queueerror.MessageNotFound)
}

// forbidden reports whether a right is missing.
func forbidden(err error) bool {
	return queueerror.HasCode(err, queueerror.AuthorizationPermissionMismatch, queueerror.AuthorizationFailure, queueerror.InsufficientAccountPermissions)
}

// maxRetryAfter bounds the Retry-After that is honored.
const maxRetryAfter = 5 * time.Minute

// retryAfter returns the server's Retry-After; 0 if there is none.
func retryAfter(err error) time.Duration {
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.RawResponse == nil {
		return 0
	}
	text := refused.RawResponse.Header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}
