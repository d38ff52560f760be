package httptrigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
	"github.com/drover-run/drover/triggers/httptrigger/response"
	"github.com/drover-run/drover/triggers/httptrigger/routes"
)

const (
	// keyHeader and keyQuery are the header and the query parameter with a request's key, as in
	// Azure Functions.
	keyHeader = "X-Functions-Key"
	keyQuery  = "code"
	// firstRead is the size of the buffer for a body of unknown length, in bytes. No more than
	// mostAtOnce is allocated before that much has arrived.
	firstRead, mostAtOnce = 4 << 10, 64 << 10
)

// request is one request, from its arrival until its response. It is the lease and the origin of
// its message.
type request struct {
	triggers.Delivery
	message triggers.Message
	trigger *Trigger
	writer  http.ResponseWriter
	control *http.ResponseController
	http    *http.Request
	params  []routes.Param

	properties func() triggers.Properties
	waits      bool  // not received yet; the trigger's mu guards it and the next three
	held       int64 // bytes of the body that the trigger counts
	previous   *request
	next       *request

	done chan struct{} // closed when the response is known, or has been written

	mu     sync.Mutex
	answer *response.Response // nil until done, and if it was written by a stream
	stream *stream
	gone   bool // the client has disconnected
}

// serve handles a request that matched the route.
func (t *Trigger) serve(w http.ResponseWriter, r *http.Request, params []routes.Param) {
	q := &request{trigger: t, writer: w, control: http.NewResponseController(w), http: r, params: params}
	if refused := t.admit(q); refused != nil {
		q.write(refused)
		return
	}
	defer t.server.addOutstanding(-1)
	body, err := q.readBody()
	refused := bodyRefusal(err)
	if err == nil {
		q.makeMessage(body)
		refused = t.addWaiting(q)
	}
	if refused != nil {
		t.release(q)
		q.write(refused)
		return
	}
	q.await()
}

// admit checks a request before its body is read. If it returns nil, the request counts as
// outstanding.
func (t *Trigger) admit(q *request) (refused *response.Response) {
	if !t.cfg.Access.allows(t.cfg.Function, t.cfg.Level, q.http) {
		return response.Unauthorized
	}
	if refused := t.refusal(); refused != nil {
		return refused
	}
	length := max(q.http.ContentLength, 0)
	if length > t.cfg.Limits.MaxBody {
		return bodyRefusal(errTooLarge)
	}
	if !t.cfg.Memory.Fits(length) {
		return response.Unavailable("no memory is free for the body", time.Second)
	}
	if n := t.server.addOutstanding(1); t.cfg.Limits.MaxOutstanding > 0 && n > int64(t.cfg.Limits.MaxOutstanding) {
		t.server.addOutstanding(-1)
		return response.TooMany
	}
	return nil
}

// allows reports whether a request has a key for the function.
func (a Access) allows(function string, level keys.Level, r *http.Request) bool {
	if level == keys.Anonymous || a.isOpen() {
		return true
	}
	key := r.Header.Get(keyHeader)
	if key == "" {
		key = r.URL.Query().Get(keyQuery)
	}
	return a.Keys.Allows(function, level, key)
}

var (
	errTooLarge = errors.New("the body is too large")
	errNoMemory = errors.New("no memory is free for the body")
)

// readBody reads the whole body.
func (q *request) readBody() ([]byte, error) {
	r, limits := q.http, q.trigger.cfg.Limits
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return []byte{}, nil
	}
	size := int64(firstRead)
	if r.ContentLength > 0 {
		size = min(r.ContentLength, mostAtOnce)
	}
	if err := q.trigger.reserve(q, size); err != nil {
		return nil, err
	}
	body := make([]byte, 0, size)
	start, next := time.Now(), 0
	for {
		if len(body) >= next {
			_ = q.control.SetReadDeadline(start.Add(limits.BodyTimeout + response.TransferTime(len(body)))) // no deadline if it is not supported
			next += 64 << 10
		}
		if len(body) == cap(body) {
			if len(body) == int(r.ContentLength) {
				break
			}
			grown := 2 * cap(body)
			if r.ContentLength > 0 {
				grown = min(grown, int(r.ContentLength))
			}
			if err := q.trigger.reserve(q, int64(grown)); err != nil {
				return nil, err
			}
			body = append(make([]byte, 0, grown), body...)
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limits.MaxBody:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			_ = q.control.SetReadDeadline(time.Time{}) // or the wait for the client's end would time out
			return body, nil
		case err != nil:
			return nil, err
		}
	}
	// The end of the body is read, so that the server can watch the connection.
	var rest [1]byte
	if n, err := r.Body.Read(rest[:]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the end of the body: %w", err)
	}
	_ = q.control.SetReadDeadline(time.Time{})
	return body, nil
}

// bodyRefusal returns the response to a request whose body could not be read.
func bodyRefusal(err error) *response.Response {
	var late net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTooLarge):
		return &response.Response{Status: http.StatusRequestEntityTooLarge, Body: []byte("the body is too large\n"), Closes: true}
	case errors.Is(err, errNoMemory):
		return response.Unavailable("no memory is free for the body", time.Second)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return &response.Response{Status: http.StatusRequestTimeout, Body: []byte("the body did not arrive in time\n"), Closes: true}
	}
	return &response.Response{Status: http.StatusBadRequest, Body: []byte("the body did not arrive whole\n"), Closes: true}
}

// makeMessage makes the message.
func (q *request) makeMessage(body []byte) {
	r := q.http
	q.properties = sync.OnceValue(q.makeProperties)
	q.done = make(chan struct{})
	q.message = triggers.Message{ID: newID(), Body: body, Attempt: 1, Enqueued: time.Now(), Subject: r.URL.Path, Origin: q}
	attributes := make(map[string]string, len(r.Header)+1)
	for name, values := range r.Header {
		if name == keyHeader && q.trigger.cfg.Level != keys.Anonymous {
			continue
		}
		attributes[name] = values[0]
		if len(values) > 1 {
			if q.message.Repeated == nil {
				q.message.Repeated = make(map[string][]string)
			}
			q.message.Repeated[name] = values
		}
	}
	attributes["Host"] = r.Host
	q.message.Attributes = attributes
	q.Init(&q.message, q)
}

// newID returns a random UUID. It is not a secret.
func newID() string {
	const digits = "0123456789abcdef"
	var id [36]byte
	high, low := rand.Uint64(), rand.Uint64()
	high = high&^0xf000 | 0x4000 // version 4
	low = low&^(3<<62) | 1<<63   // variant 1
	for i, bits := 35, low; i >= 0; i-- {
		switch i {
		case 8, 13, 18, 23:
			id[i] = '-'
			continue
		case 17:
			bits = high
		}
		id[i] = digits[bits&15]
		bits >>= 4
	}
	return string(id[:])
}

// Properties implements triggers.Origin.
func (q *request) Properties() triggers.Properties { return q.properties() }

// Native implements triggers.Origin.
func (*request) Native() map[string]any { return nil }

func (q *request) makeProperties() triggers.Properties {
	r := q.http
	query := r.URL.RawQuery
	if q.trigger.cfg.Level != keys.Anonymous {
		query = withoutKey(query)
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	address := scheme + r.Host + r.URL.EscapedPath()
	if query != "" {
		address += "?" + query
	}
	remote := r.RemoteAddr
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	params := "{}"
	if len(q.params) > 0 {
		all := make(map[string]string, len(q.params))
		for _, p := range q.params {
			all[p.Name] = p.Value
		}
		text, _ := json.Marshal(all) // a map of texts always works
		params = string(text)
	}
	return triggers.Properties{
		triggers.HTTPMethod: r.Method, triggers.HTTPURL: address, triggers.HTTPQuery: query,
		triggers.HTTPParams: params, triggers.HTTPRemote: remote,
	}
}

// withoutKey returns a query without the key.
func withoutKey(query string) string {
	if !strings.Contains(strings.ToLower(query), "c") && !strings.Contains(query, "%") {
		return query // it has no parameter with that name
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil && strings.EqualFold(decoded, keyQuery) {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

// await waits for the response and writes it. It returns early if the client disconnects.
func (q *request) await() {
	limit := time.NewTimer(q.trigger.cfg.Limits.QueueTimeout)
	defer limit.Stop()
	for {
		select {
		case <-q.done:
			q.respond()
			return
		case <-limit.C:
			if q.trigger.stopWaiting(q) {
				q.write(response.Unavailable("the function is busy", time.Second))
				return
			}
		case <-q.http.Context().Done():
			if q.trigger.stopWaiting(q) {
				return
			}
			q.Revoke()
			if q.leave() {
				return
			}
			<-q.done // the writer is in use until then
			q.respond()
			return
		}
	}
}

// leave reports whether the client's goroutine may end although the function runs.
func (q *request) leave() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone = true
	return q.stream == nil
}

// respond writes the response, unless a stream has.
func (q *request) respond() {
	q.mu.Lock()
	out, s := q.answer, q.stream
	q.mu.Unlock()
	switch {
	case s == nil:
		q.write(out)
	case !s.whole:
		panic(http.ErrAbortHandler) // the client must notice that the response is cut short
	}
}

// write writes a response, and counts it.
func (q *request) write(out *response.Response) {
	q.setCommonHeaders()
	q.trigger.responses.AddResponse(out.Status)
	out.Write(q.writer, q.control)
}

// setCommonHeaders sets the headers of all responses. Those of a response replace them.
func (q *request) setCommonHeaders() {
	for name, value := range q.trigger.cfg.Headers {
		q.writer.Header().Set(name, value)
	}
}

// finish sets the response, unless there is one.
func (q *request) finish(out *response.Response) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.answer == nil && q.stream == nil {
		q.answer = out
		close(q.done)
	}
}

// Reply implements triggers.Replier.
func (q *request) Reply(_ context.Context, body []byte, properties triggers.Properties) error {
	out, err := response.New(body, properties)
	if err == nil {
		q.finish(out)
	}
	return err
}

// Settle implements triggers.Lease.
func (q *request) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	q.mu.Lock()
	s := q.stream
	q.mu.Unlock()
	if s != nil {
		s.end(false)
		return nil
	}
	switch v.Kind {
	case triggers.Done:
		q.finish(response.NoContent)
	case triggers.Release:
		q.finish(response.Unavailable("the function could not run", time.Second))
	default:
		q.finish(response.Failed)
	}
	return nil
}

// errGone is the error of a stream whose client has disconnected.
var errGone = errors.New("the client has disconnected")

// stream is a response that is written in parts.
type stream struct {
	q      *request
	ctx    context.Context // of the call: its end ends a Write
	unhook func() bool
	ended  bool // q.mu guards both
	whole  bool
}

// ReplyStream implements triggers.StreamReplier.
func (q *request) ReplyStream(ctx context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	out, err := response.New([]byte{}, properties)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone || q.answer != nil || q.stream != nil {
		return nil, errGone
	}
	q.stream = &stream{q: q, ctx: ctx}
	q.setCommonHeaders()
	h := q.writer.Header()
	if out.SetHeaders(h); !out.HasContentType() {
		h["Content-Type"] = nil // it is not known
	}
	if length, found := out.ContentLength(); found {
		h["Content-Length"] = []string{length}
	}
	_ = q.control.SetWriteDeadline(time.Now().Add(response.WriteTimeout))
	q.trigger.responses.AddResponse(out.Status)
	q.writer.WriteHeader(out.Status)
	_ = q.control.Flush() // the client sees the headers at once
	q.stream.unhook = context.AfterFunc(ctx, q.stream.interrupt)
	return q.stream, nil
}

// interrupt ends a Write, because the call ends.
func (s *stream) interrupt() {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if !s.ended { // the end of the body has its own deadline
		_ = s.q.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// Write passes on a part, and returns when the connection has accepted it.
func (s *stream) Write(part []byte) (int, error) {
	q := s.q
	q.mu.Lock()
	ended := s.ended
	q.mu.Unlock()
	if ended {
		return 0, errGone
	}
	_ = q.control.SetWriteDeadline(time.Now().Add(response.WriteTimeout + response.TransferTime(len(part))))
	if err := s.ctx.Err(); err != nil { // the deadline that its end has set may be gone
		return 0, err
	}
	n, err := q.writer.Write(part)
	if err == nil {
		err = q.control.Flush()
	}
	return n, err
}

// Close ends the response.
func (s *stream) Close() error {
	s.end(true)
	return nil
}

// end lets the goroutine of the client continue. Without whole, the client notices that the
// response is cut short.
func (s *stream) end(whole bool) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.whole = true, whole
	s.unhook()
	if whole {
		_ = q.control.SetWriteDeadline(time.Now().Add(response.WriteTimeout)) // for the end of the body
	}
	close(q.done)
}
