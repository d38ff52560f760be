// Package response has the responses to HTTP requests: those that a function's result makes, and
// those to requests that never reach a function.
package response

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/drover-run/drover/triggers"
)

// WriteTimeout is how long a client may take to read a response, besides the time for its bytes at
// 16 KiB per second. In a stream each part has that time.
const WriteTimeout = 30 * time.Second

// minRate is the least rate, in bytes per second, at which a client must send and receive.
const minRate = 16 << 10

// TransferTime is how long n bytes may take.
func TransferTime(n int) time.Duration { return time.Duration(n) * time.Second / minRate }

// Response is a response that is known as a whole, or the start of a stream. It is not changed
// after it was made.
type Response struct {
	Status  int
	Headers [][2]string // with canonical names
	Body    []byte
	Closes  bool // the connection
}

// Responses without a function's result.
var (
	NoContent    = &Response{Status: http.StatusNoContent}
	Failed       = &Response{Status: http.StatusInternalServerError, Body: []byte("the function failed\n")}
	Unauthorized = &Response{Status: http.StatusUnauthorized, Body: []byte("this needs a key: the header x-functions-key, or ?code=\n")}
	TooMany      = &Response{Status: http.StatusTooManyRequests, Headers: [][2]string{{"Retry-After", "1"}}, Body: []byte("too many requests at once\n")}
	NotFound     = &Response{Status: http.StatusNotFound, Body: []byte("no function has this route\n")}
	BadPath      = &Response{Status: http.StatusBadRequest, Body: []byte("the path has dot segments or control characters\n")}
)

// Unavailable is the response while the function does not run.
func Unavailable(why string, retry time.Duration) *Response {
	seconds := max(int(math.Ceil(retry.Seconds())), 1)
	return &Response{Status: http.StatusServiceUnavailable, Headers: [][2]string{{"Retry-After", strconv.Itoa(seconds)}}, Body: []byte(why + "\n")}
}

// hopByHop are the headers that are about the connection, which the server sets, and Content-Length,
// which it knows better.
var hopByHop = []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// New returns the response for a function's result. The error is a property that makes no
// valid response, such as a header with a line break.
func New(body []byte, properties triggers.Properties) (*Response, error) {
	out := &Response{Status: http.StatusOK, Body: body}
	if body == nil {
		out.Status = http.StatusNoContent
	}
	if len(properties) == 0 {
		return out, nil
	}
	if text := properties[triggers.HTTPStatus]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 200 || n > 999 {
			return nil, fmt.Errorf("the response: %q is not a status from 200 to 999", text)
		}
		out.Status = n
	}
	if text := properties[triggers.HTTPHeaders]; text != "" {
		if err := json.Unmarshal([]byte(text), &out.Headers); err != nil {
			return nil, fmt.Errorf("the response: its headers are not a list of pairs of texts: %w", err)
		}
	}
	if value := properties[triggers.ContentType]; value != "" && !slices.ContainsFunc(out.Headers, isContentType) {
		out.Headers = append(out.Headers, [2]string{"Content-Type", value})
	}
	for i, h := range out.Headers {
		if !httpguts.ValidHeaderFieldName(h[0]) {
			return nil, fmt.Errorf("the response: %q is not the name of a header", h[0])
		}
		if !httpguts.ValidHeaderFieldValue(h[1]) {
			return nil, fmt.Errorf("the response: the value of the header %s has a line break or a control character", h[0])
		}
		out.Headers[i][0] = http.CanonicalHeaderKey(h[0])
	}
	return out, nil
}

func isContentType(h [2]string) bool { return strings.EqualFold(h[0], "Content-Type") }

// HasBody reports whether the status allows a body.
func (out *Response) HasBody() bool {
	return out.Status != http.StatusNoContent && out.Status != http.StatusNotModified
}

// SetHeaders sets headers of the response. They replace headers with the same names.
func (out *Response) SetHeaders(h http.Header) {
	for _, own := range out.Headers {
		delete(h, own[0])
	}
	for _, own := range out.Headers {
		if !slices.Contains(hopByHop, own[0]) {
			h[own[0]] = append(h[own[0]], own[1])
		}
	}
	if out.Closes {
		h.Set("Connection", "close")
	}
	if _, given := h["Content-Type"]; given || !out.HasBody() {
		return
	}
	kind := "application/octet-stream"
	if utf8.Valid(out.Body) {
		kind = "text/plain; charset=utf-8"
	}
	h["Content-Type"] = []string{kind}
}

// HasContentType reports whether the function has set a content type.
func (out *Response) HasContentType() bool { return slices.ContainsFunc(out.Headers, isContentType) }

// ContentLength returns the length of the body, if the function has set it.
func (out *Response) ContentLength() (text string, found bool) {
	for _, h := range out.Headers {
		if _, err := strconv.ParseUint(h[1], 10, 63); err == nil && h[0] == "Content-Length" {
			return h[1], out.HasBody()
		}
	}
	return "", false
}

// Write writes the whole response. A client that does not read it in time is disconnected.
func (out *Response) Write(w http.ResponseWriter, control *http.ResponseController) {
	h := w.Header()
	out.SetHeaders(h)
	if out.HasBody() {
		h["Content-Length"] = []string{strconv.Itoa(len(out.Body))}
	}
	_ = control.SetWriteDeadline(time.Now().Add(WriteTimeout + TransferTime(len(out.Body)))) // no deadline if it is not supported
	w.WriteHeader(out.Status)
	if out.HasBody() {
		_, _ = w.Write(out.Body) // an error means that the client has disconnected
	}
	_ = control.Flush()
	_ = control.SetWriteDeadline(time.Time{}) // the next response has its own
}

// Counts counts responses by status. The zero value is ready for use, by many goroutines.
type Counts struct {
	mu  sync.Mutex
	all map[int]int64
}

// AddResponse counts a response.
func (c *Counts) AddResponse(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[int]int64)
	}
	c.all[status]++
}

// ReadCounts returns the counts, by status.
func (c *Counts) ReadCounts() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int64, len(c.all))
	for status, n := range c.all {
		out[strconv.Itoa(status)] = n
	}
	return out
}
