package httphandler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"strings"
	"time"

	"github.com/drover-run/drover/triggers"
)

const (
	dialLimit = 5 * time.Second
	idleLimit = 90 * time.Second
	// maxAnswerHeader bounds the headers of a response, in bytes.
	maxAnswerHeader = 64 << 10
	// exactBody bounds the memory that is allocated for a body of a known length before it is received.
	exactBody = 64 << 10
)

// errTooLong is returned if a response exceeds its bound.
var errTooLong = errors.New("the answer is too long")

// answer is a response of the app.
type answer struct {
	status     int
	text       string // the status line for logs: 404 Not Found
	retryAfter string
	location   string
	body       []byte
	properties triggers.Properties // of the output
}

// client sends requests to one app.
type client struct {
	url   string // in the form that net/http accepts
	ready string
	// added are headers that replace or extend those of each request.
	added map[string]string
	// longest bounds a response, in bytes.
	longest int64
	// plain sends messages if the app speaks HTTP/1.1 without TLS; otherwise nil.
	plain *plain
	// A transport, not a client: redirects are not followed, and there are no cookies.
	transport *nethttp.Transport
}

func newClient(cfg Config) (*client, error) {
	c := &client{added: cfg.Headers, longest: cfg.MaxResponse}
	sockets := make(map[string]string) // by the host name that stands for the socket
	for _, target := range []struct {
		text string
		into *string
	}{{cfg.URL, &c.url}, {cfg.Ready, &c.ready}} {
		if target.text == "" && target.into == &c.ready {
			continue
		}
		socket, clean, err := SplitURL(target.text)
		if err != nil {
			return nil, err
		}
		if cfg.Azure != nil && target.into == &c.url {
			clean = withPath(clean, cfg.Function)
		}
		if *target.into = clean; socket != "" {
			sockets[hostOf(clean)] = socket
		}
	}
	dialer := &net.Dialer{Timeout: dialLimit}
	c.transport = &nethttp.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, err := net.SplitHostPort(address); err == nil && sockets[host] != "" {
				return dialer.DialContext(ctx, "unix", sockets[host])
			}
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: dialLimit, IdleConnTimeout: idleLimit,
		// One connection per slot is kept.
		MaxIdleConns: cfg.Slots + 1, MaxIdleConnsPerHost: cfg.Slots + 1,
		MaxResponseHeaderBytes: maxAnswerHeader, ForceAttemptHTTP2: true,
		DisableCompression: true,
	}
	if cfg.HTTP2 {
		c.transport.Protocols = new(nethttp.Protocols)
		c.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	if strings.HasPrefix(c.url, "http:") && !cfg.HTTP2 {
		var err error
		if c.plain, err = newPlain(cfg, c.url, c.dial); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// SplitURL returns a URL that a client accepts. For unix:PATH:/PATH it also returns the path of
// the socket.
func SplitURL(text string) (socket, target string, err error) {
	if rest, found := strings.CutPrefix(text, "unix:"); found {
		socket, path, found := strings.Cut(rest, ":")
		if !found || !strings.HasPrefix(path, "/") || !strings.HasPrefix(socket, "/") {
			return "", "", fmt.Errorf("%q is not a socket with a path: write it as unix:/run/app.sock:/orders", text)
		}
		return socket, fmt.Sprintf("http://socket-%x%s", socket, path), nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", "", fmt.Errorf("%q is not the URL of an app: write it as http://127.0.0.1:8080/orders, https://..., or unix:/run/app.sock:/orders; credentials go into headers", text)
	}
	return "", text, nil
}

// withPath adds the path of a function to a URL without a path, like the host of Azure Functions.
func withPath(target, function string) string {
	u, err := url.Parse(target)
	if err != nil || u.Path != "" && u.Path != "/" {
		return target
	}
	return u.JoinPath(function).String()
}

func hostOf(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// postRequest sends a message and reads the response.
func (c *client) postRequest(ctx context.Context, fields []field, body []byte) (answer, error) {
	if c.plain != nil {
		return c.plain.post(ctx, fields, body)
	}
	request, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("making the request: %w", err)
	}
	header := make(nethttp.Header, len(fields)+len(c.added))
	values := make([]string, len(fields))
	for i, f := range fields {
		values[i] = f.value
		if name := nethttp.CanonicalHeaderKey(f.name); header[name] == nil {
			header[name] = values[i : i+1 : i+1]
		} else {
			header[name] = append(header[name], f.value)
		}
	}
	for name, value := range c.added {
		if header.Set(name, value); strings.EqualFold(name, "Host") {
			request.Host = value
		}
	}
	request.Header = header
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	a, err := readAnswer(response, c.longest)
	// The rest of a response that is too long is not read: the connection is closed.
	_ = response.Body.Close()
	return a, err
}

// readAnswer reads the body of a response, of at most longest bytes, and returns what drover needs of
// the response.
func readAnswer(response *nethttp.Response, longest int64) (answer, error) {
	text, err := readBody(response, longest)
	if err != nil {
		return answer{}, err
	}
	a := answer{
		status: response.StatusCode, text: response.Status, body: text,
		retryAfter: response.Header.Get("Retry-After"), location: response.Header.Get("Location"),
	}
	if len(text) > 0 {
		for name, values := range response.Header {
			a.addProperty(name, values[0])
		}
	}
	return a, nil
}

// readBody reads the body of a response, of at most longest bytes.
func readBody(response *nethttp.Response, longest int64) (text []byte, err error) {
	n := response.ContentLength // -1: not known
	switch {
	case n == 0:
		return nil, nil
	case n > 0 && n <= min(longest, exactBody):
		text = make([]byte, n)
		_, err = io.ReadFull(response.Body, text)
	case n <= longest:
		text, err = io.ReadAll(io.LimitReader(response.Body, longest+1))
	}
	if n > longest || int64(len(text)) > longest {
		return nil, fmt.Errorf("%w: more than max_response (%d) bytes", errTooLong, longest)
	}
	return text, readError(err)
}

// readError returns the error of reading a response; nil for nil.
func readError(err error) error {
	switch {
	case err == nil, errors.Is(err, errTooLong):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("reading the answer: the app closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("reading the answer: %w", err)
}

// checkReady checks whether the app is reachable and ready.
func (c *client) checkReady(ctx context.Context) error {
	target := c.ready
	if target == "" {
		return c.checkConnect(ctx)
	}
	request, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("asking whether it is ready: %w", err)
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, response.Body, c.longest) // so that the connection can be reused
	_ = response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 300 {
		return fmt.Errorf("it is not ready: %s", response.Status)
	}
	return nil
}

// checkConnect opens a connection and closes it.
func (c *client) checkConnect(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dial opens a connection to the app.
func (c *client) dial(ctx context.Context) (net.Conn, error) {
	u, err := url.Parse(c.url)
	if err != nil {
		return nil, fmt.Errorf("reading the URL: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return c.transport.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
}

// closeIdle closes the idle connections.
func (c *client) closeIdle() {
	if c.plain != nil {
		c.plain.close()
	}
	c.transport.CloseIdleConnections()
}

// addProperty stores a header of a successful response. If a header occurs more than once, the first
// one counts.
func (a *answer) addProperty(header, value string) {
	name, ok := propertyOf(header)
	if _, known := a.properties[name]; ok && value != "" && !known {
		if a.properties == nil {
			a.properties = make(triggers.Properties, 1)
		}
		if name != triggers.ContentType {
			value = percentDecode(value)
		}
		a.properties[name] = value
	}
}
