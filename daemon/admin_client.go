package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/drover-run/drover/configs"
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

// newAdminClient is for the daemon of a configuration.
func newAdminClient(cfg *configs.Config) (*adminClient, error) {
	switch cfg.Admin.Listen {
	case "off":
		return nil, errors.New("admin.listen is off in this configuration: the daemon can't be asked")
	case "unix":
		return socketClient(adminSocket(cfg.DataDir)), nil
	}
	c := &adminClient{base: "http://" + cfg.Admin.Listen, token: string(cfg.Admin.Token), what: cfg.Admin.Listen}
	c.http = http.Client{Timeout: adminPatience, Transport: &http.Transport{DisableKeepAlives: true}}
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

// get asks for a path, and reads the answer into a value.
func (c *adminClient) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, into)
}

// post has something done.
func (c *adminClient) post(ctx context.Context, path string) error {
	var done Health
	return c.do(ctx, http.MethodPost, path, &done)
}

func (c *adminClient) do(ctx context.Context, method, path string, into any) (err error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	var refused *net.OpError
	if errors.As(err, &refused) {
		return fmt.Errorf("%w (%s: %w)", errNoDaemon, c.what, refused.Err)
	}
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon at %s answers %s: %.200s", c.what, response.Status, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}
