package httphandler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	nethttp "net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers"
)

// plain is a client for HTTP/1.1 without TLS that keeps its connections. It is for apps on the same
// machine, where the client accounts for most of a request's time. net/http reads the responses,
// but its Transport is not used, because that has two goroutines per connection. plain also detects
// whether the app has received a request.
type plain struct {
	head    string  // the beginning of each request: its first line and its Host
	added   []field // the headers of the configuration, which replace those of a message
	longest int64   // bound of a response body, in bytes
	dial    func(ctx context.Context) (net.Conn, error)

	mu      sync.Mutex
	idle    []*plainConn // the last one is used first
	maxIdle int          // bound of the idle connections
	sweep   *time.Timer  // runs while there are idle connections
	closed  bool
}

const (
	// longestPlainHeader limits the headers of a response, in bytes, including those of preceding
	// responses with status 1xx.
	longestPlainHeader = 16 << 10
	// maxInterim bounds the number of responses with status 1xx. net/http's client has the same bound.
	maxInterim = 5
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
	left int64     // bytes that may be read: it bounds the headers
	used bool      // an earlier request has used it
	last time.Time // the time of its last use
}

func newPlain(cfg Config, target string, dial func(ctx context.Context) (net.Conn, error)) (*plain, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("reading the URL: %w", err)
	}
	p := &plain{longest: cfg.MaxResponse, dial: dial, maxIdle: cfg.Slots}
	host := u.Host
	for name, value := range cfg.Headers {
		switch strings.ToLower(name) {
		case "host":
			host = value
		case "content-length", "transfer-encoding": // those of the request are right
		default:
			p.added = append(p.added, field{name, value})
		}
	}
	p.head = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n", u.RequestURI(), host)
	return p, nil
}

// Write counts the bytes.
func (c *plainConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += uint64(n)
	return n, err
}

// Read reads at most c.left bytes.
func (c *plainConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes of headers", errTooLong, longestPlainHeader)
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// post sends a message and reads the response. If the app has closed a kept connection
// before it received anything of the request, post sends the request on a new connection.
func (p *plain) post(ctx context.Context, fields []field, body []byte) (answer, error) {
	c := p.takeIdle()
	for {
		if c == nil {
			conn, err := p.dial(ctx)
			if err != nil {
				return answer{}, err
			}
			c = &plainConn{Conn: conn}
			c.r, c.w = bufio.NewReader(c), bufio.NewWriter(c)
		}
		a, err := p.roundTrip(ctx, c, fields, body)
		if !errors.Is(err, errUnseen) {
			return a, err
		}
		p.dropIdle() // they are as old
		c = nil
	}
}

// errUnseen is returned for a request if the app has received nothing of it.
var errUnseen = errors.New("the app had closed the connection")

// roundTrip sends a request and reads its response. It keeps or closes the connection.
func (p *plain) roundTrip(ctx context.Context, c *plainConn, fields []field, body []byte) (answer, error) {
	before := c.sent
	uncancel := c.closeOnCancel(ctx)
	written := p.send(c.w, fields, body)
	var a answer
	err, open := written, false
	if written == nil || c.sent > before { // an app may respond and close before it has read the whole request
		a, open, err = c.readAnswer(p.longest)
	}
	whole := uncancel()
	if err == nil && written == nil && whole && open && c.r.Buffered() == 0 {
		p.keepIdle(c)
		return a, nil
	}
	unseen := err != nil && c.used && c.r.Buffered() == 0 && (c.sent == before || nothingAcked(c.Conn, before))
	_ = c.Close() // the connection is not reused
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		return answer{}, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded): // the socket's deadline may pass before the context's
		return answer{}, context.DeadlineExceeded
	case unseen:
		return answer{}, errUnseen
	case written != nil && !errors.Is(err, errTooLong):
		return answer{}, fmt.Errorf("sending the request: %w", written)
	}
	return answer{}, err
}

// send sends a request. net/http's Request.Write would send a large body in small pieces.
func (p *plain) send(w *bufio.Writer, fields []field, body []byte) error {
	_, _ = w.WriteString(p.head)
	for _, f := range fields {
		if !slices.ContainsFunc(p.added, func(a field) bool { return strings.EqualFold(a.name, f.name) }) {
			writeHeader(w, f)
		}
	}
	for _, f := range p.added {
		writeHeader(w, f)
	}
	writeHeader(w, field{"Content-Length", strconv.Itoa(len(body))})
	_, _ = w.WriteString("\r\n")
	_, _ = w.Write(body)
	return w.Flush() // it also returns the errors of the writes
}

func writeHeader(w *bufio.Writer, f field) {
	_, _ = w.WriteString(f.name)
	_, _ = w.WriteString(": ")
	_, _ = w.WriteString(f.value)
	_, _ = w.WriteString("\r\n")
}

// readAnswer reads a response. open reports whether the app keeps the connection open.
func (c *plainConn) readAnswer(longest int64) (a answer, open bool, err error) {
	c.left = longestPlainHeader
	for range maxInterim + 1 {
		response, err := nethttp.ReadResponse(c.r, nil) //nolint:bodyclose // the body is read to its end, or the connection is closed
		if err != nil {
			return answer{}, false, readError(err)
		}
		if response.StatusCode >= 200 || response.StatusCode == nethttp.StatusSwitchingProtocols {
			c.left = math.MaxInt64
			a, err = readAnswer(response, longest)
			return a, !response.Close && response.StatusCode >= 200, err
		}
	}
	return answer{}, false, fmt.Errorf("reading the answer: more than %d answers with a status of 1xx", maxInterim)
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
