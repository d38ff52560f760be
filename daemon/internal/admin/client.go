package admin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/daemon/internal/tlsconfig"
)

// maxResponse bounds an answer, and a line of a stream, in bytes.
const maxResponse = 64 << 20

// ErrNoDaemon is the error of a request if no daemon listens.
var ErrNoDaemon = errors.New("no daemon of this configuration is running here")

// LoadRefusedError is the error of a reload that was refused because code does not load.
type LoadRefusedError struct{ Err error }

func (e *LoadRefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *LoadRefusedError) Unwrap() error { return e.Err }

// Client sends requests to a running daemon. A request fails after ten seconds. The text of an
// error may contain control characters, from the answer.
type Client struct {
	http  http.Client
	base  string
	token string
	at    string // the address, for errors
}

// NewClient returns a client of the daemon of a configuration. Of its secrets, the client needs
// only those of admin.
func NewClient(cfg *configs.Config) (*Client, error) {
	switch cfg.Admin.Listen {
	case "off":
		return nil, errors.New("admin.listen is off in this configuration: the daemon cannot be queried")
	case "unix":
		return NewSocketClient(cfg.DataDir), nil
	}
	c, err := newPortClient("admin.listen", cfg.Admin.Listen)
	if err != nil {
		return nil, err
	}
	c.token = string(cfg.Admin.Token)
	if cfg.Admin.TLS == nil {
		return c, nil
	}
	if cfg.Admin.Token == "" && (cfg.Admin.Client == nil || cfg.Admin.Client.Cert == "") {
		return nil, errors.New("the daemon requires a client certificate; set cert and key of admin.client, usually file:PATH")
	}
	host, _, _ := net.SplitHostPort(c.at) // newPortClient joined it
	secured, err := clientTLS(cfg.Admin, host)
	if err != nil {
		return nil, fmt.Errorf("admin.client: %w", err)
	}
	c.base = "https://" + c.at
	c.http.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: secured}
	return c, nil
}

// NewSocketClient returns a client of the daemon that listens on the socket of a data directory.
func NewSocketClient(dataDir string) *Client {
	path := SocketPath(dataDir)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	}
	return &Client{
		base: "http://localhost", at: path,
		http: http.Client{Timeout: readTimeout, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}
}

// NewProbesClient returns a client of the server of health checks at an address.
func NewProbesClient(listen string) (*Client, error) { return newPortClient("probes.listen", listen) }

// newPortClient returns a client of a server on a port. If that listens on all addresses, the
// client uses localhost.
func newPortClient(key, listen string) (*Client, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	address := net.JoinHostPort(host, port)
	return &Client{
		base: "http://" + address, at: address,
		http: http.Client{Timeout: readTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}, nil
}

// clientTLS returns the TLS configuration of a client. Without a ca it trusts only the
// certificate of the server, which the same configuration names.
func clientTLS(admin configs.Admin, host string) (*tls.Config, error) {
	client := configs.TLS{}
	if admin.Client != nil {
		client = *admin.Client
	}
	pinned := client.CA == ""
	if pinned {
		client.CA = admin.TLS.Cert
	}
	out, err := tlsconfig.ForClient(&client)
	if err != nil || !pinned || client.ServerName != "" {
		return out, err
	}
	block, _ := pem.Decode([]byte(admin.TLS.Cert))
	if block == nil {
		return nil, errors.New("admin.tls.cert: it has no certificate in PEM; did you mean file:PATH?")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin.tls.cert: %w", err)
	}
	if leaf.VerifyHostname(host) != nil { // localhost, which few certificates name
		switch {
		case len(leaf.DNSNames) > 0:
			out.ServerName = leaf.DNSNames[0]
		case len(leaf.IPAddresses) > 0:
			out.ServerName = leaf.IPAddresses[0].String()
		}
	}
	return out, nil
}

// WithoutTimeout returns a copy whose requests end only with their contexts.
func (c *Client) WithoutTimeout() *Client {
	patient := *c
	patient.http.Timeout = 0
	return &patient
}

// GetHealth requests the health, at api.HealthPath or api.ReadyPath. A daemon that is not ready
// is no error.
func (c *Client) GetHealth(ctx context.Context, path string) (h api.Health, err error) {
	status, text, err := c.readResponse(ctx, http.MethodGet, path, nil)
	if err != nil {
		return h, err
	}
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return h, c.statusError(status, text)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return h, nil
}

// GetJSON reads the answer of a GET into a value.
func (c *Client) GetJSON(ctx context.Context, path string, into any) error {
	return c.exchangeJSON(ctx, http.MethodGet, path, nil, into)
}

// PostEmpty sends a POST without a body, whose answer is an api.Health.
func (c *Client) PostEmpty(ctx context.Context, path string) error {
	var done api.Health
	return c.exchangeJSON(ctx, http.MethodPost, path, nil, &done)
}

// PostJSON sends a POST, and reads its answer into a value. body may be nil.
func (c *Client) PostJSON(ctx context.Context, path string, body []byte, into any) error {
	return c.exchangeJSON(ctx, http.MethodPost, path, body, into)
}

// StreamLog calls each with each line of the log of a function, at the path of an api.LogRequest.
// It returns nil when the daemon has no more lines or stops, and when ctx ends.
func (c *Client) StreamLog(ctx context.Context, path string, each func(telemetry.LogLine)) (err error) {
	response, err := c.WithoutTimeout().sendRequest(ctx, http.MethodGet, path, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxResponse)) // an error leaves the text received so far
		return c.statusError(response.StatusCode, text)
	}
	in := bufio.NewScanner(response.Body)
	in.Buffer(nil, maxResponse)
	for in.Scan() {
		if len(in.Bytes()) == 0 { // the daemon sends empty lines to check whether the client is connected
			continue
		}
		var line telemetry.LogLine
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return fmt.Errorf("reading the daemon's answer: %w", err)
		}
		each(line)
	}
	if err := in.Err(); err != nil && ctx.Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF) { // the daemon was killed
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}

func (c *Client) exchangeJSON(ctx context.Context, method, path string, body []byte, into any) error {
	status, text, err := c.readResponse(ctx, method, path, body)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return c.statusError(status, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}

// statusError returns the error of an answer that has another status.
func (c *Client) statusError(status int, text []byte) error {
	var problem api.Problem
	if json.Unmarshal(text, &problem) != nil || problem.Error == "" {
		problem.Error = fmt.Sprintf("%.200s (not an answer of this version of drover)", text)
	}
	err := fmt.Errorf("the daemon at %s answers %d %s: %s", c.at, status, http.StatusText(status), problem.Error)
	if problem.LoadError {
		return &LoadRefusedError{err}
	}
	return err
}

func (c *Client) readResponse(ctx context.Context, method, path string, body []byte) (status int, text []byte, err error) {
	response, err := c.sendRequest(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err = io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return 0, nil, fmt.Errorf("querying the daemon: %w", err)
	}
	return response.StatusCode, text, nil
}

// sendRequest sends a request. The caller closes the body of the answer.
func (c *Client) sendRequest(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("querying the daemon: %w", err)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		return nil, fmt.Errorf("%w (%s: %w); start it with drover run, or name its configuration with -c", ErrNoDaemon, c.at, refused.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("querying the daemon: %w", err)
	}
	return response, nil
}
