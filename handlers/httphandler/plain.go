package httphandler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/drover-run/drover/handlers"
)

// plain is a client for HTTP/1.1 without TLS that keeps its connections. It is for apps on the same
// machine, where the client takes the larger part of a request's time. It takes less than half of
// the time of net/http's client, which has two goroutines per connection. It also detects whether
// the app has received a request. fasthttp encodes and decodes the messages. Its own client is not
// used, because a context does not end its requests.
type plain struct {
	host, uri string
	added     []field         // to each request
	replaced  map[string]bool // their names, in lower case
	longest   int             // bound of a response body, in bytes
	dial      func(ctx context.Context) (net.Conn, error)

	mu      sync.Mutex
	idle    []*plainConn // the last one is used first
	maxIdle int          // bound of the idle connections
	sweep   *time.Timer  // runs while there are idle connections
	closed  bool
}

const (
	// longestPlainHeader bounds the headers of a response, in bytes: each connection has a buffer
	// of that size.
	longestPlainHeader = 16 << 10
	plainWriteBuffer   = 4 << 10
	// probeAfter is the idle time after which a connection is checked before its next use: the app
	// may have closed it.
	probeAfter = 10 * time.Millisecond
)

// plainConn is a connection. One request uses it at a time.
type plainConn struct {
	net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	sent uint64    // bytes sent
	used bool      // an earlier request has used it
	last time.Time // the time of its last use
}

// Write counts the bytes.
func (c *plainConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += uint64(n)
	return n, err
}

func newPlain(cfg Config, target string, dial func(ctx context.Context) (net.Conn, error)) (*plain, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("reading the URL: %w", err)
	}
	p := &plain{host: u.Host, uri: u.RequestURI(), longest: int(cfg.MaxResponse), dial: dial, maxIdle: cfg.Slots, replaced: make(map[string]bool)}
	for name, value := range cfg.Headers {
		if strings.EqualFold(name, "Host") {
			p.host = value
			continue
		}
		p.added = append(p.added, field{name, value})
		p.replaced[strings.ToLower(name)] = true
	}
	return p, nil
}

// post sends a message and reads the response. If the app has closed a kept connection before it
// received anything of the request, post sends the request on a new connection.
func (p *plain) post(ctx context.Context, fields []field, body []byte) (answer, error) {
	c := p.takeIdle()
	for {
		if c == nil {
			conn, err := p.dial(ctx)
			if err != nil {
				return answer{}, err
			}
			c = &plainConn{Conn: conn}
			c.r, c.w = bufio.NewReaderSize(conn, longestPlainHeader), bufio.NewWriterSize(c, plainWriteBuffer)
		}
		a, err := p.roundTrip(ctx, c, fields, body)
		if !errors.Is(err, errUnseen) {
			return a, err
		}
		p.dropIdle() // they are as old
		c = nil
	}
}

// errUnseen is returned for a request of which the app has received nothing.
var errUnseen = errors.New("the app had closed the connection")

// roundTrip sends a request and reads its response. It keeps or closes the connection.
func (p *plain) roundTrip(ctx context.Context, c *plainConn, fields []field, body []byte) (answer, error) {
	before := c.sent
	uncancel := c.closeOnCancel(ctx)
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	p.fillRequest(request, fields, body)
	response.Header.SetNoDefaultContentType(true)
	err := request.Write(c.w)
	if err == nil {
		err = c.w.Flush()
	}
	written := err
	if err == nil || c.sent > before { // an app may respond and close before it has read the whole request
		err = response.ReadLimitBody(c.r, p.longest)
	}
	whole := uncancel()
	var a answer
	if err == nil {
		a = answerOf(response)
	}
	if err == nil && written == nil && whole && !response.ConnectionClose() && c.r.Buffered() == 0 {
		p.keepIdle(c)
		return a, nil
	}
	unseen := err != nil && c.used && c.r.Buffered() == 0 && (c.sent == before || nothingAcked(c.Conn, before))
	_ = c.Close() // the connection is not reused
	var small *fasthttp.ErrSmallBuffer
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		return answer{}, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded): // the socket's deadline may pass before the context's
		return answer{}, context.DeadlineExceeded
	case unseen:
		return answer{}, errUnseen
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return answer{}, fmt.Errorf("%w: more than max_response (%d) bytes", errTooLong, p.longest)
	case errors.As(err, &small):
		return answer{}, fmt.Errorf("%w: more than %d bytes of headers", errTooLong, longestPlainHeader)
	case written != nil:
		return answer{}, fmt.Errorf("sending the request: %w", written)
	case errors.Is(err, io.EOF):
		return answer{}, fmt.Errorf("reading the answer: the app closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return answer{}, fmt.Errorf("reading the answer: %w", err)
}

// closeOnCancel aborts reads and writes of the connection when ctx ends, until stop is called. stop
// reports whether it was called in time.
func (c *plainConn) closeOnCancel(ctx context.Context) (stop func() bool) {
	end := func() { _ = c.SetDeadline(time.Unix(1, 0)) }
	i, ok := ctx.(handlers.Interruptible)
	if !ok {
		return context.AfterFunc(ctx, end)
	}
	at, _ := i.Deadline() // zero: no deadline
	_ = c.SetDeadline(at) // if this fails, the request fails
	return i.OnInterrupt(end)
}

// fillRequest sets the headers and the body of a request.
func (p *plain) fillRequest(request *fasthttp.Request, fields []field, body []byte) {
	h := &request.Header
	h.DisableNormalizing()
	h.SetMethod(nethttp.MethodPost)
	h.SetRequestURI(p.uri)
	h.SetHost(p.host)
	for _, f := range fields {
		if len(p.added) == 0 || !p.replaced[strings.ToLower(f.name)] {
			h.Add(f.name, f.value)
		}
	}
	for _, f := range p.added {
		h.Add(f.name, f.value)
	}
	request.SetBodyRaw(body)
}

func answerOf(response *fasthttp.Response) answer {
	a := answer{status: response.StatusCode()}
	if text := response.Body(); len(text) > 0 {
		a.body = append(make([]byte, 0, len(text)), text...) // the response is reused
		for name, value := range response.Header.All() {
			if len(name) >= len("Content-Type") && (name[0]|0x20 == 'c' || name[0]|0x20 == 'd') {
				a.addProperty(string(name), string(value))
			}
		}
	}
	if a.status < 200 || a.status >= 300 {
		a.text = fmt.Sprintf("%d %s", a.status, nethttp.StatusText(a.status))
		a.retryAfter, a.location = string(response.Header.Peek("Retry-After")), string(response.Header.Peek("Location"))
	}
	return a
}

// takeIdle returns an idle connection; nil if there is none.
func (p *plain) takeIdle() *plainConn {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if time.Since(c.last) < probeAfter || !peerClosed(c.Conn) {
			return c
		}
		_ = c.Close() // the app has closed it
	}
}

// keepIdle keeps a connection for the next request.
func (p *plain) keepIdle(c *plainConn) {
	c.used, c.last = true, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.maxIdle {
		_ = c.Close()
		return
	}
	if p.idle = append(p.idle, c); p.sweep == nil {
		p.sweep = time.AfterFunc(idleLimit, p.closeOld)
	}
}

// closeOld closes connections that were idle for long. The oldest ones are at the front.
func (p *plain) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].last) >= idleLimit {
		_ = p.idle[n].Close()
		n++
	}
	if p.idle = append(p.idle[:0], p.idle[n:]...); len(p.idle) == 0 || p.closed {
		p.sweep = nil
		return
	}
	p.sweep.Reset(idleLimit - time.Since(p.idle[0].last))
}

// dropIdle closes all idle connections.
func (p *plain) dropIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		_ = c.Close()
	}
	p.idle = nil
}

// close closes the idle connections, and stops keeping any.
func (p *plain) close() {
	p.dropIdle()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed = true; p.sweep != nil {
		p.sweep.Stop()
	}
}
