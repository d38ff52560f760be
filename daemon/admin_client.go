package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
)

// maxAnswer bounds what a command reads from a daemon, in bytes.
const maxAnswer = 64 << 20

// errNoDaemon says that no daemon of a configuration answers.
var errNoDaemon = errors.New("no daemon of this configuration is running here")

// adminClient asks a running daemon.
type adminClient struct {
	http  http.Client
	base  string
	token string
	what  string // for messages
}

// clientFlags are those of a command that talks to a running daemon. It needs none of
// the daemon's secrets.
type clientFlags struct {
	configFlag
	DataDir string `name:"data-dir" placeholder:"DIR" help:"Find the daemon by its data_dir, without reading a configuration."`
}

// loadClient reads what the command must know to reach the daemon, and nothing else.
func (f clientFlags) loadClient(ctx context.Context, std *IO) (*configs.Config, error) {
	if f.DataDir == "" {
		return configs.LoadClient(ctx, f.Config, std.Env)
	}
	dir, err := filepath.Abs(f.DataDir)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", f.DataDir, err)
	}
	cfg := configs.New()
	cfg.DataDir = dir
	return cfg, nil
}

func (f clientFlags) adminClient(ctx context.Context, std *IO) (*adminClient, error) {
	cfg, err := f.loadClient(ctx, std)
	if err != nil {
		return nil, err
	}
	return newAdminClient(cfg)
}

// postTo sends a request without a body to the daemon.
func (f clientFlags) postTo(ctx context.Context, std *IO, path string) error {
	client, err := f.adminClient(ctx, std)
	if err != nil {
		return err
	}
	return client.post(ctx, path)
}

// newAdminClient is for the daemon of a configuration.
func newAdminClient(cfg *configs.Config) (*adminClient, error) {
	switch cfg.Admin.Listen {
	case "off":
		return nil, errors.New("admin.listen is off in this configuration: the daemon cannot be queried")
	case "unix":
		return socketClient(adminSocket(cfg.DataDir)), nil
	}
	c, err := portClient("admin.listen", cfg.Admin.Listen)
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
	host, _, _ := net.SplitHostPort(c.what) // it was joined
	secured, err := adminClientTLS(cfg.Admin, host)
	if err != nil {
		return nil, fmt.Errorf("admin.client: %w", err)
	}
	c.base = "https://" + c.what
	c.http.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: secured}
	return c, nil
}

// socketClient is for the daemon behind a socket.
func socketClient(path string) *adminClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	}
	return &adminClient{
		base: "http://localhost", what: path,
		http: http.Client{Timeout: adminPatience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}
}

// probesClient is for the server of health checks.
func probesClient(listen string) (*adminClient, error) { return portClient("probes.listen", listen) }

// portClient is for a server on a port, which may listen everywhere.
func portClient(key, listen string) (*adminClient, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	address := net.JoinHostPort(host, port)
	return &adminClient{
		base: "http://" + address, what: address,
		http: http.Client{Timeout: adminPatience, Transport: &http.Transport{DisableKeepAlives: true}},
	}, nil
}

// health asks how the daemon is; that it is not well is no error.
func (c *adminClient) health(ctx context.Context, path string) (h api.Health, err error) {
	status, text, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return h, err
	}
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return h, c.refusal(status, text)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return h, nil
}

// get asks for a path, and reads the answer into a value.
func (c *adminClient) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, nil, into)
}

// post has something done.
func (c *adminClient) post(ctx context.Context, path string) error {
	var done api.Health
	return c.do(ctx, http.MethodPost, path, nil, &done)
}

func (c *adminClient) do(ctx context.Context, method, path string, body []byte, into any) error {
	status, text, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return c.refusal(status, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}

// refusal is an answer that is not what was asked for.
func (c *adminClient) refusal(status int, text []byte) error {
	var said api.Problem
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = fmt.Sprintf("%.200s (no daemon of this version answers so)", text)
	}
	return fmt.Errorf("the daemon at %s answers %d %s: %s", c.what, status, http.StatusText(status), term.Printable(said.Error))
}

func (c *adminClient) ask(ctx context.Context, method, path string, body []byte) (status int, text []byte, err error) {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("querying the daemon: %w", err)
	}
	return response.StatusCode, text, nil
}

// send sends a request; the caller closes the answer.
func (c *adminClient) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
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
		return nil, fmt.Errorf("%w (%s: %w)", errNoDaemon, c.what, refused.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("querying the daemon: %w", err)
	}
	return response, nil
}
